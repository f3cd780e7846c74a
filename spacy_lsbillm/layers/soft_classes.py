"""Probabilities of classes as the truth of a document: what another classifier has said of it.

spaCy's `textcat` allows classes to be there or not there, and nothing between. So a document that is learned from
(`Example.predicted`) carries them itself, and the model's own gradient takes the place of spaCy's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from ..errors import SettingError
from .class_loss import LossSettings

# In `doc.user_data`: an array of float32, a number for each class of the model in its order.
SOFT_CLASSES = "soft_classes"


def put_soft_gradient(
    model: Model, docs: Sequence[Doc], probabilities: Floats2d, gradient: Floats2d, loss: LossSettings
) -> Floats2d:
    """The gradient of cross-entropy to the probabilities that documents carry, in the place of what came for them.

    docs (Sequence[Doc]): What went in.
    probabilities (Floats2d), gradient (Floats2d): What came out, and what came back; shape (documents, classes).
    loss (LossSettings): Of the other documents.
    RAISES (SettingError): A document carries those of other classes, or the loss is made for one true class.
    """
    told: dict[int, Any] = {
        i: doc.user_data[SOFT_CLASSES] for i, doc in enumerate(docs) if SOFT_CLASSES in doc.user_data
    }
    if not told:
        return gradient
    if not loss.plain:
        raise SettingError(
            "class_weights, focal_gamma and label_smoothing are not made for probabilities of classes, from which the "
            "classifier learns. Leave them out."
        )
    numbers = {len(truth) for truth in told.values()}
    if numbers != {probabilities.shape[1]}:
        raise SettingError(
            f"a document says how probable {max(numbers)} classes are, and the classifier has "
            f"{probabilities.shape[1]}. Give it the same labels (initialize.components)."
        )
    xp = model.ops.xp
    rows = xp.asarray(list(told))
    found = gradient.copy()
    found[rows] = probabilities[rows] - xp.asarray(np.stack(list(told.values())), dtype="f")
    return found
