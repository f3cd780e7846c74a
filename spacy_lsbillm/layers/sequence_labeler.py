"""The model of the `sequence_labeler`: token vectors projected into the space of tags."""

from spacy.tokens import Doc
from thinc.api import Dropout, Linear, Model, chain, with_array, zero_init
from thinc.types import Floats2d

from .listening import guard, listeners_in


def build_sequence_labeler(
    tok2vec: Model[list[Doc], list[Floats2d]], nO: int | None = None
) -> Model[list[Doc], list[Floats2d]]:
    """Dropout and one linear layer over the token vectors, as LS-LLaMA has it (Li et al., 2023).

    tok2vec (Model): Documents to one array of token vectors each.
    nO (int | None): The number of tags; None: set by the component.
    RETURNS (Model): Documents to the scores of tags (not normalised), one array of shape (tokens, tags) each.
    """
    for listener in listeners_in(tok2vec):
        guard(listener)
    output: Model = Linear(nO, init_W=zero_init)
    model: Model = chain(tok2vec, with_array(chain(Dropout(0.0), output)))
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", output)
    return model
