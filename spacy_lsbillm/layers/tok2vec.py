"""The backbone inside the component that uses it, in place of a listener."""

from dataclasses import replace
from typing import Any

from spacy.tokens import Doc
from spacy_transformers.layers import split_trf_batch, trfs2arrays
from thinc.api import Model, chain
from thinc.types import Floats2d, Ragged

from ..errors import StorageError
from .token_vectors import skip_pooling

ARCHITECTURE = "spacy-lsbillm.Tok2VecBiLLM.v1"


def build_tok2vec(
    transformer: Model[list[Doc], Any], pooling: Model[Ragged, Floats2d], grad_factor: float
) -> Model[list[Doc], list[Floats2d]]:
    """Build a backbone with pooling, nested as by `Language.replace_listeners`.

    A model saved after one can then be loaded by the other.
    """
    model: Model = chain(chain(transformer, split_trf_batch()), trfs2arrays(pooling, grad_factor))
    skip_pooling(model)
    return model


def replace_listener(model: Model[list[Doc], Any]) -> Model[list[Doc], Any]:
    """Return the model that replaces a listener. spaCy calls this with a copy of the transformer's model.

    The copy shares the base's weights, and stores only a reference to the base, which the transformer component stores.
    RAISES (StorageError): The pipeline stores no base that could be referred to.
    """
    shim: Any = model.shims[0]
    if shim.settings.store_base in ("merged", "int8"):
        raise StorageError(
            f'listeners cannot be replaced with store_base = "{shim.settings.store_base}": each would have to store a '
            'whole model. Set store_base = "copy" or "reference", or leave the component as it is.'
        )
    shim.settings = replace(shim.settings, store_base="reference")
    return chain(model, split_trf_batch())


def replace_listener_cfg(transformer: dict[str, Any], listener: dict[str, Any]) -> dict[str, Any]:
    """The config block of the model that `replace_listener` returns.

    transformer (dict): The `model` block of the transformer component.
    listener (dict): The block of the listener that is replaced.
    """
    return {
        "@architectures": ARCHITECTURE,
        "transformer": {**transformer, "store_base": "reference"},
        "pooling": listener["pooling"],
        "grad_factor": listener.get("grad_factor", 1.0),
    }
