"""`python -m spacy lsbillm annotate`: a corpus through a pipeline, on many processes or machines."""

import errno
from pathlib import Path
from typing import Annotated

from typer import Argument, Option
from wasabi import msg

from ..annotation import FORMATS, SUFFIXES, AnnotationSettings, Keys, RunSettings, annotate
from ..errors import SettingError
from . import app
from .device import device_of
from .options import (
    BatchOption,
    CodeOption,
    ErrorsOption,
    IdKeyOption,
    OptionalAddress,
    PipelineArgument,
    ProcessesOption,
    QuietOption,
    RayOption,
    TextKeyOption,
)
from .pipelines import any_pipeline_folder

InputArgument = Annotated[
    Path, Argument(help=f"A file that ends in {', '.join(SUFFIXES)}, or a folder of such files", show_default=False)
]
OutputArgument = Annotated[Path, Argument(help="Output folder; an interrupted run resumes in it")]
FormatOption = Annotated[
    str | None,
    Option("--format", "-f", help=f"{', '.join(FORMATS)}. Default: the format of INPUT, or jsonl for text"),
]
SpansOption = Annotated[
    list[str] | None, Option("--spans-key", help="Span group in doc.spans to write; may be repeated. Default: all")
]
LengthOption = Annotated[
    int | None, Option("--max-length", help="Maximum characters per document. Default: 1,000,000, as in spaCy")
]
ShardOption = Annotated[int, Option("--shard-size", help="Input documents per output file")]
GpuOption = Annotated[
    str,
    Option(
        "--gpu-id", "-g", help="GPU ids, such as 0 or 0,1,2; -1 for the CPU. With --ray, 0 means one GPU per process"
    ),
]
BytesOption = Annotated[
    int,
    Option(
        "--batch-bytes",
        help="Maximum bytes of text per batch (about 4 per word piece); longer documents are sent alone",
    ),
]
TimeoutOption = Annotated[
    float | None,
    Option(
        "--timeout", help="Seconds allowed per batch; a process that takes longer is replaced and its batch retried"
    ),
]
HOW = RunSettings()


@app.command("annotate", cls=OptionalAddress)
def annotate_cli(
    pipeline: PipelineArgument,
    input: InputArgument,
    output: OutputArgument,
    format: FormatOption = None,
    text_key: TextKeyOption = "text",
    id_key: IdKeyOption = "id",
    spans_key: SpansOption = None,
    max_length: LengthOption = None,
    shard_size: ShardOption = AnnotationSettings.shard_size,
    code: CodeOption = None,
    processes: ProcessesOption = HOW.processes,
    gpu_id: GpuOption = "-1",
    batch_size: BatchOption = HOW.batch_size,
    batch_bytes: BytesOption = HOW.batch_bytes,
    max_errors: ErrorsOption = HOW.max_errors,
    ray: RayOption = None,
    timeout: TimeoutOption = HOW.timeout,
    quiet: QuietOption = False,
) -> None:
    """Annotate a corpus with a trained pipeline, in parallel: each document exactly once, in input order.

    INPUT is text (one document per line), JSONL (one object per line, with "text" and optionally "id"), .spacy or
    Parquet. OUTPUT receives shards/part-000000.jsonl and so on, with the id, text, ents, cats and spans of each
    document; failures.jsonl, with documents that could not be read or annotated; and manifest.json. Run the same
    command again to resume an interrupted run. Processes that die are replaced; a document that kills them is set
    aside.

    Example: python -m spacy lsbillm annotate training/model-best corpus/ annotated --processes 4
    """
    try:
        settings = AnnotationSettings(
            pipeline=pipeline,
            pipeline_folder=any_pipeline_folder(pipeline),
            input=input,
            output=output,
            format=format,
            keys=Keys(text_key, id_key),
            spans_keys=tuple(spans_key) if spans_key else None,
            max_length=max_length,
            shard_size=shard_size,
            code=code,
        )
        how = RunSettings(processes, _gpus(gpu_id, ray), batch_size, batch_bytes, max_errors, ray, timeout)
        done = annotate(settings, how, msg.warn, quiet)
    except ValueError as error:
        msg.fail("Cannot annotate", str(error), exits=1)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = " Make room, then run the same command again to continue." if full else ""
        msg.fail("Cannot annotate", f"{error}.{remedy}", exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped. Run the same command again to continue.", exits=130)
    sums = done.sums
    if not done.seconds:
        msg.good(f"{output} is complete already: {sums['documents']:,} documents in {sums['shards']:,} shards")
    else:
        speed = f"{done.documents:,} documents in {done.seconds:,.0f} seconds, {done.words / done.seconds:,.0f} words/s"
        msg.good(f"Annotated {speed}", f"{output}: {sums['documents']:,} documents in {sums['shards']:,} shards")
    if sums["failures"]:
        msg.warn(f"{sums['failures']:,} documents were set aside: {output / 'failures.jsonl'}")


def _gpus(numbers: str, ray: str | None) -> tuple[int, ...]:
    """Read the ids of the GPUs.

    RAISES (SettingError): They are not numbers, or this machine, where the processes run, has no such GPU.
    """
    try:
        gpus = tuple(int(number) for number in numbers.split(","))
    except ValueError:
        raise SettingError(f"--gpu-id {numbers} is not allowed: give numbers such as 0 or 0,1,2, or -1.") from None
    if gpus == (-1,):
        return ()
    if min(gpus) < 0 or len(set(gpus)) < len(gpus):
        raise SettingError(f"--gpu-id {numbers} is not allowed: each GPU once, and -1 alone.")
    if ray is None:
        for number in gpus:
            device_of(number)
    return gpus
