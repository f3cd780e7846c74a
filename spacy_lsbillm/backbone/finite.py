"""Refusing values that are NaN or infinite, with their cause.

Otherwise they would silently make the predictions of all components worthless.
"""

import torch
from torch import Tensor

from ..errors import AdapterError, BaseError
from .model import Backbone


def check_adapter(values: Tensor) -> None:
    """Check that an adapter's values are finite.

    RAISES (AdapterError): Some are NaN or infinite.
    """
    if not torch.isfinite(values).all():
        raise AdapterError(
            "the adapter contains NaN or infinite values: its training has diverged. Train again with a lower rate "
            "(training.optimizer.learn_rate, or learn_rate_scale for the adapter alone), or use a pipeline that was "
            "saved earlier."
        )


def check_states(states: Tensor, backbone: Backbone) -> None:
    """Check that the states of a prediction are finite.

    RAISES (AdapterError): Some are not, because of the adapter.
    RAISES (BaseError): Some are not, because of the base.
    """
    if torch.isfinite(states).all():
        return
    for value in backbone.trainable().values():
        check_adapter(value)
    dtype = str(backbone.causal_lm.dtype).removeprefix("torch.")
    raise BaseError(
        f"the base {backbone.base.name!r} gives states that are NaN or infinite with dtype {dtype}. "
        + (
            'float16 holds nothing above 65,504: set dtype = "bfloat16" or "float32".'
            if dtype == "float16"
            else "Its weights are damaged, or an adapter that has diverged was folded into them."
        )
    )
