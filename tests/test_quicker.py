"""What makes the tests faster changes no result."""

import pytest
import quicker
import torch
from torch import arange
from transformers import masking_utils

FUNCTIONS = {
    "causal": lambda: masking_utils.causal_mask_function,
    "window": lambda: masking_utils.sliding_window_causal_mask_function(3),
    "chunks": lambda: masking_utils.chunked_causal_mask_function(3),
    "packed": lambda: masking_utils.and_masks(
        masking_utils.causal_mask_function,
        masking_utils.packed_sequence_mask_function(torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 2, 2]])),
    ),
}


@pytest.mark.skipif(not hasattr(masking_utils, "_vmap_for_bhqkv"), reason="transformers 5 does the same itself")
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_masks_are_those_of_transformers(function):
    real = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    wanted = masking_utils.and_masks(function(), masking_utils.padding_mask_function(real))
    quick = masking_utils._vmap_for_bhqkv
    assert quick.__module__ == quicker.__name__
    with masking_utils.TransformGetItemToIndex():
        given = [arange(2), arange(1), arange(7), arange(7)]
        found = quick(wanted)(*given)
        for dimension in reversed(range(4)):
            wanted = torch.vmap(wanted, in_dims=tuple(0 if i == dimension else None for i in range(4)), out_dims=0)
        expected = wanted(*given)
    assert found.dtype == expected.dtype and torch.equal(found, expected)
