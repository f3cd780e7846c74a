"""`python -m spacy lsbillm train`: `spacy train` with checkpoints to resume from."""

from pathlib import Path
from typing import Annotated

from spacy.cli._util import import_code, parse_config_overrides
from typer import Argument, Context, Option
from wasabi import msg

from ..errors import OWN_ERRORS
from ..training import Interval, TrainSettings, train
from . import app
from .options import CodeOption, GpuOption
from .stopped import exit_if_stopped

ConfigArgument = Annotated[Path, Argument(help="Training config, as for spacy train", exists=True, allow_dash=True)]
OutputOption = Annotated[
    Path | None, Option("--output", "--output-path", "-o", help="Folder for model-best, model-last and checkpoints")
]
EveryOption = Annotated[
    str | None,
    Option(
        "--checkpoint-every",
        "-e",
        help="Steps (200) or time (90s, 10m, 2h) between checkpoints. Default: none; with --resume, as before",
    ),
]
ResumeOption = Annotated[bool, Option("--resume", "-r", help="Resume from the last checkpoint in --output")]
ForceOption = Annotated[bool, Option("--force", help="Resume even if the config, corpus or versions differ")]


@app.command("train", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train_cli(
    ctx: Context,
    config_path: ConfigArgument,
    output: OutputOption = None,
    code: CodeOption = None,
    gpu_id: GpuOption = -1,
    checkpoint_every: EveryOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
) -> None:
    """Train a pipeline as `spacy train` does, with checkpoints to resume from.

    Without --checkpoint-every this is `spacy train`: the same loop, output and weights. With it, everything that later
    steps depend on is saved to OUTPUT/checkpoints; the last two checkpoints are kept. After a crash, kill or reboot,
    run the same command with --resume: on one CPU thread it ends with exactly the weights of an uninterrupted run. On
    SIGTERM a checkpoint is written and the exit status is 75.

    Override settings of the config like --training.max_steps 1000. max_steps, eval_frequency, patience and the logger
    may change between runs.

    Example: python -m spacy lsbillm train config.cfg --output run --checkpoint-every 10m
    """
    with exit_if_stopped("continue with --resume."):
        try:
            interval = None if checkpoint_every is None else Interval.read(checkpoint_every)
            overrides = parse_config_overrides(ctx.args)
            import_code(code)
            train(TrainSettings(config_path, output, overrides, gpu_id, interval, resume, force))
        except OWN_ERRORS as error:
            msg.fail("Cannot train", str(error), exits=1)
