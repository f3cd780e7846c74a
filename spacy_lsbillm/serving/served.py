"""A pipeline that is served."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.util import load_model

from ..annotation.piping import error_text, piped
from ..annotation.records import record_of
from ..errors import MaskError, SettingError
from ..layers import backbone_shim
from ..pipeline.billm_transformer import BiLLMTransformer

# Each pipeline annotates this text when it is loaded: a first pass is slower than later ones, and a pipeline that
# cannot annotate is detected before the first request.
FIRST_TEXT = "A first text, in Paris."


class Served:
    """A loaded pipeline and its name. Only one thread may use it at a time.

    name (str): Its name in requests.
    nlp (Language): The pipeline.
    max_length (int): Maximum characters per text.
    """

    def __init__(self, name: str, nlp: Language, max_length: int) -> None:
        self.name, self.nlp = name, nlp
        nlp.max_length = max_length
        pipes = [pipe for _, pipe in nlp.pipeline]
        self._transformers = [pipe for pipe in pipes if isinstance(pipe, BiLLMTransformer)]
        self._mask: str | None = None

    @classmethod
    def load(cls, name: str, folder: Path, max_length: int) -> "Served":
        """Load a pipeline, and let it annotate a text.

        RAISES (SettingError): It cannot.
        """
        try:
            served = cls(name, load_model(folder), max_length)
            [record] = served.annotate([(FIRST_TEXT[:max_length], 0)])
        except Exception as error:
            raise SettingError(f"the pipeline {name!r} cannot be loaded: {error_text(error)}") from error
        if "error" in record:
            raise SettingError(f"the pipeline {name!r} cannot annotate a text: {record['error']}")
        return served

    @property
    def bases(self) -> set[int]:
        """The bases in memory that it uses, as numbers that identify them."""
        return {id(backbone_shim(pipe.model).backbone.shared) for pipe in self._transformers}

    @property
    def masks(self) -> dict[str, str]:
        """Which layers each of its billm_transformers unmasks by default, in words; empty if it has none."""
        return {pipe.name: pipe.mask.words for pipe in self._transformers}

    @property
    def labels(self) -> list[str]:
        """The labels of all its components, each once."""
        return list(dict.fromkeys(label for labels in self._labels().values() for label in labels))

    def _labels(self) -> dict[str, list[str]]:
        return {name: list(getattr(pipe, "labels", ())) for name, pipe in self.nlp.pipeline}

    def describe(self) -> dict[str, Any]:
        """The description of the pipeline at /v1/pipelines."""
        masks = [
            {"component": pipe.name, "unmask": pipe.mask.notation, "words": pipe.mask.words}
            for pipe in self._transformers
        ]
        return {
            "name": self.name,
            "lang": self.nlp.lang,
            "version": str(self.nlp.meta.get("version", "")),
            "components": self._labels(),
            "masks": masks,
        }

    def check_mask(self, notation: str | None) -> None:
        """Check a mask for this pipeline.

        RAISES (MaskError): It cannot be read, or the pipeline has no component that uses it.
        """
        if notation is None:
            return
        if not self._transformers:
            raise MaskError(f"mask = {notation!r}: the pipeline {self.name!r} has no billm_transformer. Leave it out.")
        for pipe in self._transformers:
            type(pipe.mask).parse(notation, len(pipe.mask.unmasked), "mask")

    def annotate(self, texts: Sequence[tuple[str, int]], mask: str | None = None) -> list[dict[str, Any]]:
        """Annotate texts as one batch.

        texts (Sequence[tuple[str, int]]): Texts with their ids.
        mask (str | None): In mask notation; None: the pipeline's own.
        RETURNS (list[dict]): The records that `annotate` writes; for a text that fails, `id` and `error`.
        RAISES (DeviceLost): The GPU cannot be used any more.
        """
        self._use_mask(mask)
        # New words are removed from the vocabulary afterwards.
        with self.nlp.memory_zone():
            outcomes = piped(self.nlp, texts)
            return [_record(outcome, id_) for outcome, (_, id_) in zip(outcomes, texts, strict=True)]

    def _use_mask(self, mask: str | None) -> None:
        if mask != self._mask:
            for pipe in self._transformers:
                pipe.use_mask(mask)
            self._mask = mask


def _record(outcome: Any, id_: int) -> dict[str, Any]:
    try:
        if isinstance(outcome, Exception):
            raise outcome
        return record_of(outcome)
    except Exception as error:
        return {"id": id_, "error": error_text(error)}
