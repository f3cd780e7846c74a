"""Collecting the predictions of a pipeline's heads on annotated documents."""

from collections.abc import Iterable
from typing import Any

from spacy.language import Language
from spacy.training import Example
from spacy.util import minibatch

from ..pipeline.calibrated import CalibratedComponent
from .classes import evidence_of_classes
from .evidence import FLOOR, Evidence, evidence_of_spans, joined

BATCH = 128


def gather(
    nlp: Language, heads: Iterable[str], examples: Iterable[Example], least: float | None = FLOOR
) -> dict[str, Evidence]:
    """Collect what heads predict for documents, without their calibration.

    Documents go through the rest of the pipeline once.

    heads (Iterable[str]): The names of components that can be calibrated.
    examples (Iterable[Example]): A document is left out for heads for which it has no annotation.
    least (float | None): The minimum probability of a candidate span; None: only spans that are written.
    RETURNS (dict): By head, for heads for which some document has annotation.
    """
    heads = list(heads)
    parts: dict[str, list[Evidence]] = {name: [] for name in heads}
    for batch in minibatch(examples, BATCH):
        with nlp.select_pipes(disable=heads):
            docs = list(nlp.pipe(example.predicted for example in batch))
        references = [example.reference for example in batch]
        for name in heads:
            pipe: Any = nlp.get_pipe(name)
            evidence = (
                evidence_of_spans(pipe, docs, references, least)
                if isinstance(pipe, CalibratedComponent)
                else evidence_of_classes(pipe, docs, references)
            )
            if evidence is not None:
                parts[name].append(evidence)
    return {name: joined(evidence) for name, evidence in parts.items() if evidence}
