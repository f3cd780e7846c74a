"""Values that are no numbers (NaN or infinite): what they come from, in words. What a model makes of them is worth
nothing, and goes into the predictions of all components without a word."""

import torch
from torch import Tensor

from ..errors import AdapterError, BaseError
from .model import Backbone


def check_adapter(values: Tensor) -> None:
    """RAISES (AdapterError): Some of an adapter's values are no numbers."""
    if not torch.isfinite(values).all():
        raise AdapterError(
            "the adapter holds values that are no numbers (NaN or infinite): its training has diverged. Train again "
            "with a lower rate (training.optimizer.learn_rate, or learn_rate_scale for the adapter alone), or go back "
            "to a pipeline that was saved before."
        )


def check_states(states: Tensor, backbone: Backbone) -> None:
    """Of a prediction.

    RAISES (AdapterError): Some of the states are no numbers, because of the adapter.
    RAISES (BaseError): The same, because of the base.
    """
    if torch.isfinite(states).all():
        return
    for value in backbone.trainable().values():
        check_adapter(value)
    dtype = str(backbone.causal_lm.dtype).removeprefix("torch.")
    raise BaseError(
        f"the base {backbone.base.name!r} gives states that are no numbers (NaN or infinite) with dtype {dtype}. "
        + (
            'float16 holds nothing above 65,504: set dtype = "bfloat16" or "float32".'
            if dtype == "float16"
            else "Its weights are damaged, or an adapter that has diverged was folded into them."
        )
    )
