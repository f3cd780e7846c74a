"""Refusing listeners that cannot work with the transformer before them.

They are refused when the pipeline is made or initialised, instead of failing at the first update with an error about
array shapes, or learning what was not intended.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from spacy.language import Language
from spacy.pipeline import EntityLinker, MultiLabel_TextCategorizer, TextCategorizer
from spacy.pipeline.legacy.entity_linker import EntityLinker_v1
from spacy.pipeline.tok2vec import Tok2Vec, Tok2VecListener
from spacy.training import Example
from spacy_transformers.pipeline_component import Transformer
from thinc.api import Model

from ..errors import SettingError
from ..layers import ONLY_LABELLED, PIECE_POOLINGS, PIECES, backbone_shim


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


def check_pooling(component: Any, transformer: Transformer) -> None:
    """Check that a component does not choose among pieces if it gets only tokens: it would silently get the mean.

    RAISES (SettingError): It does.
    """
    if backbone_shim(transformer.model).settings.output == PIECES:
        return
    poolings = {layer.name for layer in component.model.walk()}.intersection(PIECE_POOLINGS)
    if poolings:
        raise SettingError(
            f"{component.name!r} pools the pieces of a token with {poolings.pop()!r}, but {transformer.name!r} gives "
            f'it their mean. Set output = "pieces" in the model of {transformer.name!r}, or the pooling to '
            f'"reduce_mean.v1".'
        )


def check_linkers(nlp: Language, transformer: Transformer) -> None:
    """Check that no entity linker of spaCy listens.

    It predicts from copies of sentences, which no transformer has processed.

    RAISES (SettingError): One does.
    """
    for name in transformer.listening_components:
        if isinstance(nlp.get_pipe(name), (EntityLinker, EntityLinker_v1)):
            raise SettingError(
                f"{name!r} cannot listen to {transformer.name!r}: an entity linker predicts from copies of sentences, "
                f"which no transformer of the pipeline has processed. Give it its own transformer, with "
                f'@architectures = "spacy-lsbillm.Tok2VecBiLLM.v1" in place of the listener.'
            )


def warn_of_unlabelled(nlp: Language, transformer: Transformer, get_examples: Callable[[], Iterable[Example]]) -> None:
    """Warn of training documents without a class, if a `textcat` with one of spaCy's models listens.

    Such a model treats them as having none of the classes, although each must have one. Examples are read only if one
    listens.
    """
    learn = [name for name in transformer.listening_components if _learns_from_unlabelled(nlp.get_pipe(name))]
    if not learn:
        return
    has_class = [any(example.reference.cats.values()) for example in get_examples()]
    # If no document has one, as in `spacy assemble`, there is no corpus for a textcat.
    if any(has_class) and not all(has_class):
        warnings.warn(
            f"{has_class.count(False)} of {len(has_class)} documents of the training corpus have no class in "
            f"doc.cats. {learn[0]!r} will learn from them that none of its classes is probable, as its model is "
            f"spaCy's own. Use spacy-lsbillm.TextCatReduce.v1 or spacy-lsbillm.PooledTextCat.v1, which leave them "
            f"out, and for scoring spacy-lsbillm.textcat_scorer.v1; or leave them out of the corpus.",
            stacklevel=3,
        )


def _learns_from_unlabelled(pipe: Any) -> bool:
    """Whether a component is a `textcat` whose model learns from documents without a class."""
    exclusive = isinstance(pipe, TextCategorizer) and not isinstance(pipe, MultiLabel_TextCategorizer)
    return exclusive and not pipe.model.attrs.get(ONLY_LABELLED)
