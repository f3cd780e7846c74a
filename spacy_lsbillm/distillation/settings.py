"""What a distillation is asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..annotation import Keys
from ..errors import SettingError
from ..training import Interval
from ..values import is_number, is_whole

# What a document's word may have of tags: a number of one byte.
MOST_TAGS = 255
FLOOR = 0.5


@dataclass(frozen=True)
class DistillSettings:
    """Who teaches whom, with what.

    teacher (str): A folder, or the name of an installed package.
    teacher_folder (Path): Where that is.
    student (Path): A training config.
    text (Path): Plain text: what `annotate` reads.
    output (Path): The folder to write.
    gold (Path | None): Annotated documents to learn from as well: a .spacy file, or a folder of them.
    floor (float): How probable a label must be for a component that learns from hard ones.
    top_tags (int): Tags of a token that are kept.
    keys (Keys): Where JSONL and Parquet have texts and ids.
    overrides (dict): Values of the student's config by their place.
    use_gpu (int): The number of the GPU, -1 for the CPU.
    code (Path | None): A Python file with registered functions, for teacher and student.
    checkpoint_every (Interval): Of the training.
    RAISES (SettingError): One is out of its range.
    """

    teacher: str
    teacher_folder: Path
    student: Path
    text: Path
    output: Path
    gold: Path | None = None
    floor: float = FLOOR
    top_tags: int = 8
    keys: Keys = field(default_factory=Keys)
    overrides: dict[str, Any] = field(default_factory=dict)
    use_gpu: int = -1
    code: Path | None = None
    checkpoint_every: Interval = field(default_factory=lambda: Interval.read("10m"))

    def __post_init__(self) -> None:
        check_floor(self.floor)
        if not is_whole(self.top_tags) or not 1 <= self.top_tags <= MOST_TAGS:
            raise SettingError(
                f"top_tags = {self.top_tags!r} is not allowed. Use a whole number from 1 to {MOST_TAGS}; 8 is enough "
                f"for most schemes."
            )


def check_floor(floor: float) -> None:
    """RAISES (SettingError): It is no probability of a label that is believed."""
    if not is_number(floor) or not 0.5 <= floor < 1:
        raise SettingError(
            f"floor = {floor!r} is not allowed. Use a probability of at least 0.5 and below 1: what is less probable "
            f"than not is no label."
        )
