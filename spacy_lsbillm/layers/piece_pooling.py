"""Pooling of pieces into token vectors: the vector of the first or the last piece.

thinc's own `reduce_first` and `reduce_last` do the same, but fail for tokens without pieces, such as white space with
many tokenizers. Here their vector is zero, as it is with a mean.
"""

from collections.abc import Callable
from typing import Any

from thinc.api import Model
from thinc.types import Floats2d, Ragged

# The names of the thinc layers.
PIECE_POOLINGS = FIRST, LAST = "first_piece", "last_piece"


def create_first_piece_v1() -> Model[Ragged, Floats2d]:
    """Create the layer that pools pieces to the first piece of each token."""
    return Model(FIRST, forward, attrs={"last": False})


def create_last_piece_v1() -> Model[Ragged, Floats2d]:
    """Create the layer that pools pieces to the last piece of each token."""
    return Model(LAST, forward, attrs={"last": True})


def forward(
    model: Model[Ragged, Floats2d], pieces: Ragged, is_train: bool
) -> tuple[Floats2d, Callable[[Floats2d], Ragged]]:
    """Select the first or the last piece of each token; zeros for a token without pieces.

    pieces (Ragged): The pieces of each token, shape (pieces, width).
    RETURNS (Floats2d): Shape (tokens, width).
    """
    data: Any = pieces.dataXd
    ends = pieces.lengths.cumsum()
    tokens = model.ops.xp.flatnonzero(pieces.lengths)
    chosen = (ends - 1 if model.attrs["last"] else ends - pieces.lengths)[tokens]
    vectors = model.ops.alloc2f(len(pieces.lengths), data.shape[1])
    vectors[tokens] = data[chosen]

    def backprop(gradient: Floats2d) -> Ragged:
        of_pieces = model.ops.alloc2f(*data.shape)
        of_pieces[chosen] = gradient[tokens]
        return Ragged(of_pieces, pieces.lengths)

    return vectors, backprop
