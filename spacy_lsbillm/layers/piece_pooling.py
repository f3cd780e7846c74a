"""A token's vector as that of its first or its last piece.

thinc's own `reduce_first` and `reduce_last` do the same, but refuse tokens without pieces, such as white space with
many tokenizers. Here their vector is zero, as with a mean.
"""

from collections.abc import Callable
from typing import Any

from thinc.api import Model
from thinc.types import Floats2d, Ragged

# The names of the layers.
PIECE_POOLINGS = FIRST, LAST = "first_piece", "last_piece"


def create_first_piece_v1() -> Model[Ragged, Floats2d]:
    """Pieces of tokens to the first of each."""
    return Model(FIRST, forward, attrs={"last": False})


def create_last_piece_v1() -> Model[Ragged, Floats2d]:
    """Pieces of tokens to the last of each."""
    return Model(LAST, forward, attrs={"last": True})


def forward(
    model: Model[Ragged, Floats2d], pieces: Ragged, is_train: bool
) -> tuple[Floats2d, Callable[[Floats2d], Ragged]]:
    """pieces (Ragged): Of each token, shape (pieces, width). RETURNS (Floats2d): Shape (tokens, width)."""
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
