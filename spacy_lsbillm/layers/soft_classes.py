"""Probabilities of classes as the truth of a document, as predicted by another classifier.

spaCy's `textcat` only allows a class to be present or absent. So the probabilities are stored in the document that is
learned from (`Example.predicted`), and the model replaces spaCy's gradient by its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from ..errors import SettingError
from .class_loss import LossSettings

# A key of `doc.user_data`: an array of float32 with one probability per class, in the order of the model.
SOFT_CLASSES = "soft_classes"


def put_soft_gradient(
    model: Model, docs: Sequence[Doc], probabilities: Floats2d, gradient: Floats2d, loss: LossSettings
) -> Floats2d:
    """Replace the gradient of documents with stored class probabilities by that of cross-entropy to these.

    docs (Sequence[Doc]): The input of the model.
    probabilities (Floats2d), gradient (Floats2d): Its output and the incoming gradient; shape (documents, classes).
    loss (LossSettings): The loss for the other documents.
    RAISES (SettingError): A document has another number of classes, or the loss requires one true class.
    """
    taught: dict[int, Any] = {
        i: doc.user_data[SOFT_CLASSES] for i, doc in enumerate(docs) if SOFT_CLASSES in doc.user_data
    }
    if not taught:
        return gradient
    if not loss.plain:
        raise SettingError(
            "class_weights, focal_gamma and label_smoothing cannot be used where the classifier learns from "
            "probabilities of classes. Leave them out."
        )
    numbers = {len(truth) for truth in taught.values()}
    if numbers != {probabilities.shape[1]}:
        raise SettingError(
            f"a document has probabilities for {max(numbers)} classes, and the classifier has "
            f"{probabilities.shape[1]}. Give it the same labels (initialize.components)."
        )
    xp = model.ops.xp
    rows = xp.asarray(list(taught))
    changed = gradient.copy()
    changed[rows] = probabilities[rows] - xp.asarray(np.stack(list(taught.values())), dtype="f")
    return changed
