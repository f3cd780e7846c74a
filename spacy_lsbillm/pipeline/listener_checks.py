"""Refusing listeners that cannot work with the transformer before them when the pipeline is initialised, instead of
failing at the first update with an error about array shapes."""

from typing import Any

from spacy.language import Language
from spacy.pipeline.tok2vec import Tok2Vec, Tok2VecListener
from spacy_transformers.pipeline_component import Transformer
from thinc.api import Model

from ..errors import SettingError


def check_kinds(nlp: Language, transformer: Transformer) -> None:
    """Check the kinds of listeners.

    RAISES (SettingError): A component listens to a tok2vec component, but there is none.
    """
    known = {name for name, pipe in nlp.pipeline if isinstance(pipe, Tok2Vec)}
    for name, pipe in nlp.pipeline:
        model: Any = getattr(pipe, "model", None)
        for node in model.walk() if isinstance(model, Model) else ():
            if not isinstance(node, Tok2VecListener):
                continue
            if node.upstream_name == transformer.name or (node.upstream_name == "*" and not known):
                width = node.get_dim("nO") if node.has_dim("nO") else "any"
                raise SettingError(
                    f"{name!r} has a Tok2VecListener (width {width}), which listens only to tok2vec components, but "
                    f"{transformer.name!r} is not one. In the config of {name!r} set tok2vec to "
                    f'@architectures = "spacy-transformers.TransformerListener.v1", with pooling = '
                    f'{{"@layers": "reduce_mean.v1"}} and without a width.'
                )


def check_widths(transformer: Transformer, width: int) -> None:
    """Check the widths of listeners.

    width (int): The width of the transformer's vectors.
    RAISES (SettingError): A component was made for vectors of another width.
    """
    for name, listeners in transformer.listener_map.items():
        for listener in listeners:
            if listener.has_dim("nO") and listener.get_dim("nO") != width:
                raise SettingError(
                    f"{name!r} was made for vectors of width {listener.get_dim('nO')}, as another base has them, but "
                    f"{transformer.name!r} gives vectors of width {width}. Train a new {name!r}, or use the "
                    f"transformer from the same pipeline."
                )
