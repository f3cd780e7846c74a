"""The settings of an annotation."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SettingError
from ..values import check_at_least
from .sources import Keys


@dataclass(frozen=True)
class AnnotationSettings:
    """Everything that decides the output: what is annotated, with what, and what is written.

    pipeline (str): A folder, or the name of an installed package.
    pipeline_folder (Path): The pipeline's folder on this machine.
    input (Path): A file, or a folder of files.
    output (Path): The folder to write.
    format (str | None): Format of the output, a name in `FORMATS`; None: that of the input if it is one, else JSONL.
    keys (Keys): Names of the text and the id in the input.
    spans_keys (tuple[str, ...] | None): Groups of `doc.spans` to write; None: all of them.
    max_length (int | None): Maximum characters per document; None: spaCy's limit.
    shard_size (int): Number of documents of the input per shard.
    code (Path | None): A Python file with registered functions that the pipeline needs.
    top_tags (int): Number of most probable tags to write per token, for training another head on them: see
        `pipeline.soft_tags`. Only in `.spacy` files; probabilities of classes are then rounded to half precision.
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
        check_at_least("--top-tags", self.top_tags, 0)
        check_at_least("--shard-size", self.shard_size, 1)
        if self.max_length is not None:
            check_at_least("--max-length", self.max_length, 1)


@dataclass(frozen=True)
class RunSettings:
    """How the work is done. A run may be continued with other values.

    processes (int | None): Number of annotating processes; None: one per GPU, or one per core.
    gpus (tuple[int, ...]): Numbers of the GPUs; none: the CPU. On Ray it only matters whether there are any: each
        process then gets one GPU.
    batch_size (int): Maximum number of documents sent to a process at once.
    batch_bytes (int): Approximate bytes of text sent to a process at once; a longer document is sent alone.
    max_errors (int): Number of documents that may fail before the run stops; -1: any number.
    ray (str | None): The address of a Ray cluster, or "auto"; None: processes on this machine.
    timeout (float | None): Maximum seconds per batch, after which its process is ended as if it had died; None: no
        limit.
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
            check_at_least("--processes", self.processes, 1)
        check_at_least("--batch-size", self.batch_size, 1)
        check_at_least("--batch-bytes", self.batch_bytes, 1)
        check_at_least("--max-errors", self.max_errors, -1)
