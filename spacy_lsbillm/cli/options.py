"""Arguments and options that several commands share, with one help text each."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option
from typer.core import TyperCommand

PipelineArgument = Annotated[str, Argument(help="A trained pipeline: a folder, or the name of an installed package")]

NewPipelineArgument = Annotated[Path, Argument(help="Output folder; a pipeline in it is replaced atomically")]

CodeOption = Annotated[
    Path | None,
    Option("--code", "-c", help="Python file with registered functions that the pipeline needs", exists=True),
]
GpuOption = Annotated[int, Option("--gpu-id", "-g", help="GPU id, or -1 for the CPU")]
JsonOption = Annotated[Path | None, Option("--json", "-j", help="Also write the figures to this JSON file")]
RevisionOption = Annotated[str | None, Option("--revision", help="Hub revision of the base")]
ComponentOption = Annotated[
    str | None, Option("--component", "-c", help="Name of the billm_transformer, if the config has several")
]
WorkResumeOption = Annotated[bool, Option("--resume", "-r", help="Resume from the checkpoint in the work folder")]

TextKeyOption = Annotated[str, Option("--text-key", help="JSONL key or Parquet column of the text")]
IdKeyOption = Annotated[
    str, Option("--id-key", help="JSONL key or Parquet column of the id. Documents without one get file:line")
]
ProcessesOption = Annotated[
    int | None,
    Option(
        "--processes", "-n", help="Number of processes; each loads the pipeline. Default: one per GPU, or one per core"
    ),
]
BatchOption = Annotated[int, Option("--batch-size", help="Maximum documents per batch sent to a process")]
ErrorsOption = Annotated[
    int, Option("--max-errors", help="Failed documents after which the run stops; -1 for no limit")
]
QuietOption = Annotated[bool, Option("--quiet", "-q", help="Hide the progress bar")]

ConfigArgument = Annotated[Path, Argument(help="Training config with a billm_transformer")]
GroupsOption = Annotated[
    str,
    Option("--groups", help="Number of equal layer groups; a comma-separated list searches the union of their masks"),
]
MasksOption = Annotated[
    str | None,
    Option(
        "--masks",
        "-m",
        help="Only these masks, separated by spaces, such as 'none from:4 all'; "
        "search trains each in full, whatever the strategy",
    ),
]
SeedsOption = Annotated[str, Option("--seeds", help="Comma-separated seeds; everything is trained with each of them")]
TestOption = Annotated[
    Path | None,
    Option(
        "--test", "-t", help="Test corpus. Scored once, after the search, for the chosen setting and both baselines"
    ),
]
StorageOption = Annotated[
    str | None, Option("--storage", help="Database URL, to share a search between machines. Default: OUTPUT/search.db")
]


class DeviceName(StrEnum):
    """What typer offers for --device: the keys of `training.config.DEVICES`."""

    cpu = "cpu"
    gpu = "gpu"


ANY_RAY = "auto"
RayOption = Annotated[
    str | None,
    Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Use the Ray cluster at ADDRESS (HOST:PORT), or without an address the one this machine belongs to",
    ),
]


class OptionalAddress(TyperCommand):
    """Takes --ray with and without an address."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        args = list(args)
        for i, argument in enumerate(args):
            if argument == "--ray" and (i + 1 == len(args) or args[i + 1].startswith("-")):
                args[i] = f"--ray={ANY_RAY}"
        return super().parse_args(ctx, args)
