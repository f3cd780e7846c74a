"""An output layer with more rows than it was trained with."""

from collections.abc import Sequence

from thinc.api import Model

from .output_layer import output_layer

OUTPUT = "output_layer"


def grow_output(model: Model, rows: Sequence[int], size: int) -> None:
    """Replace the model's linear `output_layer` by a larger one, for additional labels.

    Existing rows keep their values; new ones are zero. That is the mean of all rows that began at zero: a gradient
    through softmax sums to zero over the rows.

    It is a new layer to optimizers, which keep averages of the size of the parameters that they update.

    model (Model): A trained model.
    rows (Sequence[int]): The new position of each old row.
    size (int): The new number of rows.
    """
    old = model.get_ref(OUTPUT)
    larger = output_layer(size, old.get_dim("nI"))
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
