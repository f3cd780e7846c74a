"""An output layer with more rows than it was trained with."""

from collections.abc import Sequence

from thinc.api import Linear, Model, zero_init

OUTPUT = "output_layer"


def grow_output(model: Model, rows: Sequence[int], size: int) -> None:
    """Put a larger layer in the place of the linear one that is the model's `output_layer`. The rows that it has are
    kept as they are; new ones are zero, which is the mean of all rows that have begun there: softmax changes none of
    them without changing the others by as much in sum.

    It is another layer for optimizers, which remember averages of the size of what they step.

    model (Model): Trained.
    rows (Sequence[int]): Where each of the old rows goes.
    size (int): The number of rows from now on.
    """
    old = model.get_ref(OUTPUT)
    larger: Model = Linear(size, old.get_dim("nI"), init_W=zero_init)
    larger.name = old.name
    chosen = larger.ops.asarray1i(list(rows))
    weights, bias = larger.ops.alloc2f(size, old.get_dim("nI")), larger.ops.alloc1f(size)
    weights[chosen] = old.get_param("W")
    bias[chosen] = old.get_param("b")
    larger.set_param("W", weights)
    larger.set_param("b", bias)
    around = [node for node in model.walk() if any(inner is old for inner in node.walk()) and node is not old]
    model.replace_node(old, larger)
    for node in around:
        if node.has_dim("nO"):
            node.set_dim("nO", size, force=True)
