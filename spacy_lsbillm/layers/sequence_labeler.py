"""The model of the `sequence_labeler`: token vectors projected into the space of tags."""

from collections.abc import Callable, Sequence
from typing import Any

from spacy.tokens import Doc
from thinc.api import Dropout, Model, chain, with_array
from thinc.backends import ParamServer
from thinc.layers.chain import forward as run_in_turn
from thinc.types import Floats2d

from .growing import grow_output
from .listening import guard, listeners_in
from .output_layer import output_layer

# The name of the parameter with transition scores, in models that learn them.
TRANSITIONS = "transitions"


def build_sequence_labeler(
    tok2vec: Model[list[Doc], list[Floats2d]], nO: int | None = None
) -> Model[list[Doc], list[Floats2d]]:
    """Build a token classifier: dropout and one linear layer over the token vectors, as in LS-LLaMA (Li et al., 2023).

    tok2vec (Model): Maps documents to one array of token vectors each.
    nO (int | None): The number of tags; None: set by the component.
    RETURNS (Model): Maps documents to unnormalised tag scores, one array of shape (tokens, tags) each. If the component
        has added transitions (`learn_transitions`), the gradient has theirs as one additional array at the end.
    """
    for listener in listeners_in(tok2vec):
        guard(listener)
    output = output_layer(nO)
    model: Model = chain(tok2vec, with_array(chain(Dropout(0.0), output)))
    # Not a separate layer, so that models saved before there were transitions can still be loaded.
    model._func = forward
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", output)
    return model


def learn_transitions(model: Model, n_tags: int) -> None:
    """Add transition scores between tags to a model, initially 0.

    model (Model): From `build_sequence_labeler`.
    """
    model.set_param(TRANSITIONS, model.ops.alloc2f(n_tags + 1, n_tags + 1))


def grow_labeler(model: Model, places: Sequence[int], n_tags: int) -> None:
    """Give a model more tags: it keeps its output for the old ones (`grow_output`) and the transitions between them.

    Transitions of new tags are 0.

    model (Model): A trained model.
    places (Sequence[int]): The new number of each old tag.
    n_tags (int): The new number of tags.
    """
    old = transitions_of(model)
    if old is None:
        grow_output(model, places, n_tags)
        return
    # A model with parameters cannot change its size. Optimizers find what they know about parameters, which has their
    # size, by the number of the model: it gets a new one.
    model.set_param(TRANSITIONS, None)
    grow_output(model, places, n_tags)
    model.id, model._params = Model(model.name, forward).id, ParamServer()
    larger, kept = model.ops.alloc2f(n_tags + 1, n_tags + 1), model.ops.asarray1i([*places, n_tags])
    larger[kept[:, None], kept] = old
    model.set_param(TRANSITIONS, larger)


def transitions_of(model: Model) -> Floats2d | None:
    """The transition scores of a model, shape (tags + 1, tags + 1), see `tagging.crf`; None: it has none."""
    return model.get_param(TRANSITIONS) if model.has_param(TRANSITIONS) else None


def forward(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[list[Floats2d], Callable[[list[Floats2d]], list[Doc]]]:
    """Run the layers, and return the gradient of transitions as well if there are any."""
    scores, backprop = run_in_turn(model, docs, is_train)
    if not model.has_param(TRANSITIONS):
        return scores, backprop

    def backprop_both(gradient: list[Floats2d]) -> Any:
        *of_scores, of_transitions = gradient
        model.inc_grad(TRANSITIONS, of_transitions)
        return backprop(of_scores)

    return scores, backprop_both
