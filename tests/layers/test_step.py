"""The optimizer over all parameters at once does the same as for each parameter alone."""

import numpy as np
import pytest
import torch
from thinc.api import Optimizer, RAdam, warmup_linear

from spacy_lsbillm.layers.optimizer_step import step_all

pytestmark = pytest.mark.any_stack

SHAPES = {"one": (3, 4), "two": (5,), "three": (2, 2, 2)}
KEY = (7, "adapter")


def make(learn_rate=0.01, **settings):
    return lambda: Optimizer(learn_rate, **{"L2": 0.0, "grad_clip": 0.0, "beta1": 0.9, "beta2": 0.999, **settings})


@pytest.mark.parametrize(
    "make_optimizer",
    [
        make(),
        make(grad_clip=1.0),
        make(grad_clip=1.0, L2=0.1, L2_is_weight_decay=True),
        make(grad_clip=1.0, L2=0.1, L2_is_weight_decay=False),
        lambda: make(learn_rate=warmup_linear(0.01, 2, 9), grad_clip=0.5)(),
        make(beta1=0.0, beta2=0.0),
        make(use_averages=False),
        lambda: RAdam(0.01),
    ],
)
@pytest.mark.parametrize("lr_scale", [1.0, 0.3])
def test_all_at_once_is_one_after_the_other(make_optimizer, lr_scale):
    generator = torch.Generator().manual_seed(0)
    ours = {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}
    theirs = {name: value.detach().numpy().copy() for name, value in ours.items()}
    together, apart = make_optimizer(), make_optimizer()
    clip = together.grad_clip, together.L2
    for _ in range(6):
        for number, (name, value) in enumerate(ours.items()):
            # Some above the clipping norm, some below.
            value.grad = torch.randn(value.shape, generator=generator) * 0.2 * (1 + 3 * number)
            theirs[name], _ = apart((7, name), theirs[name], value.grad.numpy().copy(), lr_scale=lr_scale)
        step_all(together, KEY, ours, lr_scale)
        assert all(value.grad is None for value in ours.values())
        for name, value in ours.items():
            np.testing.assert_allclose(value.detach().numpy(), theirs[name], rtol=1e-5, atol=1e-6)
            if apart.averages is not None:
                np.testing.assert_allclose(together.averages[7, name], apart.averages[7, name], rtol=1e-5, atol=1e-6)
        assert (together.grad_clip, together.L2) == clip
        together.step_schedules()
        apart.step_schedules()


def test_what_has_no_gradient_stays():
    parameters = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in SHAPES.items()}
    step_all(make()(), KEY, parameters, 1.0)
    parameters["two"].grad = torch.ones(5)
    step_all(make()(), KEY, parameters, 1.0)
    assert (parameters["one"] == 1).all() and (parameters["two"] != 1).all()
