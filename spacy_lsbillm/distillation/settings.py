"""The settings of a distillation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..annotation import Keys
from ..errors import SettingError
from ..training import Interval
from ..values import is_number, is_whole

# The number of tags is stored in one byte per token.
MOST_TAGS = 255
FLOOR = 0.5


@dataclass(frozen=True)
class DistillSettings:
    """The teacher, the student and the data of a distillation.

    teacher (str): A folder, or the name of an installed package.
    teacher_folder (Path): The teacher's folder.
    student (Path): A training config.
    text (Path): Plain text, in a format that `annotate` reads.
    output (Path): The folder to write.
    gold (Path | None): Annotated documents to learn from as well: a .spacy file, or a folder of them.
    floor (float): The minimum probability of labels for components that learn from hard labels.
    top_tags (int): The number of tags stored per token.
    keys (Keys): Names of the text and the id in JSONL and Parquet.
    overrides (dict): Values of the student's config by their path.
    use_gpu (int): The number of the GPU, -1 for the CPU.
    code (Path | None): A Python file with registered functions, for teacher and student.
    checkpoint_every (Interval): Interval between checkpoints of the training.
    RAISES (SettingError): A value is out of range.
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
    """Check the minimum probability of hard labels.

    RAISES (SettingError): It is not at least 0.5 and below 1.
    """
    if not is_number(floor) or not 0.5 <= floor < 1:
        raise SettingError(
            f"floor = {floor!r} is not allowed. Use a probability of at least 0.5 and below 1: a label that is less "
            f"probable than not must not be learned."
        )
