"""`python -m spacy lsbillm init-config`: a complete config to train with."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from spacy.cli._util import COMMAND
from typer import Argument, Option
from wasabi import Printer

from ..backbone import check_notation
from ..training_config import KNOWN, TRANSFORMER, training_config
from . import app
from .output import write_text


class DeviceName(StrEnum):
    """What typer offers for --device: the keys of `DEVICES`."""

    cpu = "cpu"
    gpu = "gpu"


OutputPath = Annotated[Path, Argument(help='The config file to write, or "-" for standard output', allow_dash=True)]
Lang = Annotated[str, Option("--lang", "-l", help='Code of the language, such as "en"; "xx" for several')]
Pipeline = Annotated[
    str, Option("--pipeline", "-p", help=f"Components to train, with commas between them. Known: {', '.join(KNOWN)}")
]
Base = Annotated[str, Option("--base", "-b", help="The language model: a Hugging Face folder, or a hub id")]
DEVICE_HELP = (
    "Where you will train. gpu: bfloat16, larger batches, a learning rate for a base of some hundred million "
    "parameters or more. cpu: float32, and a learning rate for a small base"
)
DeviceOption = Annotated[DeviceName, Option("--device", "-d", help=DEVICE_HELP)]
UNMASK_HELP = (
    "Layers that attend in both directions: all, none, bits:0011 (one bit a group of layers, the first is next to the "
    "input), from:8, layers:4-7,12"
)
Unmask = Annotated[str, Option("--unmask", "-u", help=UNMASK_HELP)]
POOLING_HELP = (
    "The head of a textcat is one linear layer over one pooled vector: last, mean, max or attention. Without it, the "
    "head is spaCy's own"
)
Pooling = Annotated[str | None, Option("--pooling", help=POOLING_HELP)]
Force = Annotated[bool, Option("--force", "-F", help="Write over an existing file")]


@app.command("init-config")
def init_config_cli(
    output: OutputPath,
    lang: Lang = "en",
    pipeline: Pipeline = "ner,textcat",
    base: Base = "Qwen/Qwen2.5-0.5B",
    device: DeviceOption = DeviceName.cpu,
    unmask: Unmask = "all",
    pooling: Pooling = None,
    force: Force = False,
) -> None:
    """Write a complete config for spacy train: a bidirectional LLM, and components that listen to it.

    Nothing is loaded or fetched: the base is looked for when the training begins. Its weights stay outside the trained
    pipeline (store_base = "reference"); set store_base = "copy" to make a package that needs nothing else. Everything
    in the file may be changed by hand, or by options of spacy train such as --training.max_steps 2000.

    Example: python -m spacy lsbillm init-config ner.cfg --pipeline ner --base Qwen/Qwen2.5-0.5B --device gpu
    """
    to_stdout = str(output) == "-"
    msg = Printer(no_print=to_stdout)
    try:
        if not to_stdout and output.exists() and not force:
            raise ValueError(f"{output} exists. Use --force to write over it, or another name.")
        text = config_text(lang, component_names(pipeline), base, device.value, unmask, pooling)
        if not to_stdout:
            write_text(output, text)
    except (ValueError, OSError, ImportError) as error:
        Printer().fail("Cannot make a config", str(error), exits=1)
    if to_stdout:
        print(text, end="")
    msg.good(f"Saved a complete config: {output}")
    if device == DeviceName.gpu:
        msg.text(
            "spaCy needs CuPy to use a GPU, cupy-cuda13x or cupy-cuda12x as torch.version.cuda is: https://docs.cupy.dev/en/stable/install.html"
        )
    msg.text("Train with:")
    if not to_stdout:
        print(train_command(output, device.value))


def component_names(pipeline: str) -> list[str]:
    """The components in a list with commas. The transformer is always there, and may be named."""
    names = [name.strip() for name in pipeline.split(",")]
    return [name for name in names if name and name != TRANSFORMER]


def config_text(lang: str, pipeline: list[str], base: str, device: str, unmask: str, pooling: str | None = None) -> str:
    """The config as it is written.

    RAISES (ValueError): One of the arguments is not allowed.
    """
    notation = check_notation(unmask)
    config = training_config(base, lang=lang, pipeline=pipeline, device=device, pooling=pooling, unmask=notation)
    return config.to_str(interpolate=False) + "\n"


def train_command(config: Path, device: str) -> str:
    """The command that trains with a config, its corpora still to be named."""
    gpu = " --gpu-id 0" if device == "gpu" else ""
    return (
        f"{COMMAND} train {shlex.quote(str(config))} --output training{gpu} "
        f"--paths.train train.spacy --paths.dev dev.spacy"
    )
