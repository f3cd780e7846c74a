"""Listeners that cannot work with the transformer before them: found when the pipeline is initialised, rather than at
the first update, by an error about the shapes of arrays."""

from typing import Any

from spacy.language import Language
from spacy.pipeline.tok2vec import Tok2Vec, Tok2VecListener
from spacy_transformers.pipeline_component import Transformer
from thinc.api import Model

from ..errors import SettingError


def check_kinds(nlp: Language, transformer: Transformer) -> None:
    """RAISES (SettingError): A component listens to a tok2vec component, of which there is none."""
    known = {name for name, pipe in nlp.pipeline if isinstance(pipe, Tok2Vec)}
    for name, pipe in nlp.pipeline:
        model: Any = getattr(pipe, "model", None)
        for node in model.walk() if isinstance(model, Model) else ():
            if not isinstance(node, Tok2VecListener):
                continue
            if node.upstream_name == transformer.name or (node.upstream_name == "*" and not known):
                width = node.get_dim("nO") if node.has_dim("nO") else "any"
                raise SettingError(
                    f"{name!r} has a Tok2VecListener (width {width}), which hears tok2vec components alone, and "
                    f"{transformer.name!r} is none. In the config of {name!r} set tok2vec to "
                    f'@architectures = "spacy-transformers.TransformerListener.v1", with pooling = '
                    f'{{"@layers": "reduce_mean.v1"}} and without a width.'
                )


def check_widths(transformer: Transformer, width: int) -> None:
    """width (int): Of the transformer's vectors.

    RAISES (SettingError): A component was made for vectors of another width.
    """
    for name, listeners in transformer.listener_map.items():
        for listener in listeners:
            if listener.has_dim("nO") and listener.get_dim("nO") != width:
                raise SettingError(
                    f"{name!r} was made for vectors of {listener.get_dim('nO')} numbers, as another base has them, and "
                    f"{transformer.name!r} gives {width}. Train a new {name!r}, or take its transformer from the same "
                    f"pipeline."
                )
