"""What an annotation is told."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SettingError
from .sources import Keys


@dataclass(frozen=True)
class AnnotationSettings:
    """What is annotated, with what, and what is written: all that decides the output.

    pipeline (str): A folder, or the name of an installed package.
    pipeline_folder (Path): Where that is on this machine.
    input (Path): A file, or a folder of them.
    output (Path): The folder to write.
    format (str | None): Of the output, a name in `FORMATS`; None: that of the input where it has one, else JSONL.
    keys (Keys): Where the input has texts and ids.
    spans_keys (tuple[str, ...] | None): Groups of `doc.spans` that are written; None: all of them.
    max_length (int | None): Characters that a document may have; None: spaCy's limit.
    shard_size (int): Documents of the input that make a shard.
    code (Path | None): A Python file with registered functions that the pipeline needs.
    top_tags (int): Also the most probable tags of each token, so many, for another head to learn from: see
        `pipeline.soft_tags`. In `.spacy` files alone; probabilities of classes are rounded to half precision with it.
    """

    pipeline: str
    pipeline_folder: Path
    input: Path
    output: Path
    format: str | None = None
    keys: Keys = field(default_factory=Keys)
    spans_keys: tuple[str, ...] | None = None
    max_length: int | None = None
    shard_size: int = 5000
    code: Path | None = None
    top_tags: int = 0

    def __post_init__(self) -> None:
        check_at_least(0, **{"--top-tags": self.top_tags})
        check_at_least(1, **{"--shard-size": self.shard_size})
        if self.max_length is not None:
            check_at_least(1, **{"--max-length": self.max_length})


@dataclass(frozen=True)
class RunSettings:
    """How it is done. A run may go on with others than it was begun with.

    processes (int | None): That annotate; None: one a GPU, or one a core.
    gpus (tuple[int, ...]): Numbers of the GPUs; with none it is done on the CPU. On Ray: what counts is whether there
        are any; each process is then given one GPU.
    batch_size (int): Documents that go to a process at once, at most.
    batch_bytes (int): Bytes of text that go to a process at once, about; a longer document goes alone.
    max_errors (int): Documents that may fail before the run stops; -1: any number.
    ray (str | None): The address of a Ray cluster, or "auto"; None: processes on this machine.
    timeout (float | None): Seconds after which a process that is still at a batch is ended, as if it had died; None:
        there is no limit.
    """

    processes: int | None = None
    gpus: tuple[int, ...] = ()
    batch_size: int = 256
    batch_bytes: int = 65536
    max_errors: int = 100
    ray: str | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise SettingError(f"--timeout {self.timeout} is not allowed: it must be a number of seconds above 0.")
        if self.processes is not None:
            check_at_least(1, **{"--processes": self.processes})
        check_at_least(1, **{"--batch-size": self.batch_size, "--batch-bytes": self.batch_bytes})
        check_at_least(-1, **{"--max-errors": self.max_errors})


def check_at_least(least: int, **options: int) -> None:
    """RAISES (SettingError): The value of an option is below the least."""
    for name, value in options.items():
        if value < least:
            raise SettingError(f"{name} {value} is not allowed: it must be a whole number of at least {least}.")
