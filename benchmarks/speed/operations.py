"""The operations that training time is spent on, according to torch's profiler."""

from collections import Counter

from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from .turns import Contestant

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
ELEMENTWISE = (
    "mul",
    "add",
    "add_",
    "silu",
    "silu_backward",
    "gelu",
    "pow",
    "sum",
    "div",
    "neg",
    "mean",
    "rsqrt",
    "cat",
)
BASE, ADAPTER, SCALING = "products of the base", "products of the adapter", "products with a number"
ATTENTION, OTHERS = "attention", "other elementwise"
REST = "the rest"


def operations(contestant: Contestant, rank: int) -> dict[str, float]:
    """Seconds of processor time by kind of operation, in one round after a first one that does not count.

    rank (int): The adapter's rank: a matrix product with that many rows or columns belongs to the adapter.
    """
    contestant.run(contestant.prepare())
    prepared = contestant.prepare()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        contestant.run(prepared)
    seconds: Counter[str] = Counter()
    for event in found.key_averages(group_by_input_shape=True):
        seconds[_kind(event, rank)] += event.self_cpu_time_total / 1e6
    return dict(seconds)


def _kind(event: FunctionEventAvg, rank: int) -> str:
    shapes = [shape for shape in event.input_shapes or [] if shape]
    if event.key in PRODUCTS:
        return ADAPTER if any(rank in shape for shape in shapes) else BASE
    if "scaled_dot_product" in event.key:
        return ATTENTION
    name = event.key.removeprefix("aten::")
    if name == "mul" and len(shapes) == 1:
        return SCALING
    return OTHERS if name in ELEMENTWISE else REST
