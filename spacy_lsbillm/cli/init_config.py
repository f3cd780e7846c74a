"""`python -m spacy lsbillm init-config`: a complete config to train with."""

import shlex
from pathlib import Path
from typing import Annotated

from spacy.cli._util import COMMAND
from typer import Argument, Option
from wasabi import Printer

from ..backbone import BaseSettings, check_notation
from ..backbone.location import local_folder
from ..backbone.size import BaseSize, size_of
from ..files import write_text
from ..layers.billm_model import default_window
from ..training.config import DEVICES, KNOWN, TRANSFORMER, schedule_of, training_config
from ..training.fitted import Fitted, fitted_to
from . import app
from .options import DeviceName

OutputPath = Annotated[Path, Argument(help='The config file to write, or "-" for standard output', allow_dash=True)]
Lang = Annotated[str, Option("--lang", "-l", help='Code of the language, such as "en"; "xx" for several')]
Pipeline = Annotated[
    str, Option("--pipeline", "-p", help=f"Components to train, with commas between them. Known: {', '.join(KNOWN)}")
]
Base = Annotated[str, Option("--base", "-b", help="The language model: a Hugging Face folder, or a hub id")]
DEVICE_HELP = (
    "Where you will train. gpu: bfloat16, larger batches, more steps. cpu: float32. For a base that is no folder here "
    "it decides the learning rate as well: that of gpu is for some hundred million parameters or more"
)
DeviceOption = Annotated[DeviceName, Option("--device", "-d", help=DEVICE_HELP)]
UNMASK_HELP = (
    "Layers that attend in both directions: all, none, bits:0011 (one bit a group of layers, the first is next to the "
    "input), from:8, layers:4-7,12"
)
Unmask = Annotated[str, Option("--unmask", "-u", help=UNMASK_HELP)]
REPEAT_HELP = (
    "Copies of the text before the one whose states count, so that causal layers see all of it too; each makes "
    "prediction about once as slow again"
)
Repeat = Annotated[int, Option("--repeat", min=0, help=REPEAT_HELP)]
POOLING_HELP = (
    "The head of a textcat is one linear layer over one pooled vector: last, mean, max or attention. Without it, the "
    "head is that of spaCy's TextCatReduce"
)
Pooling = Annotated[str | None, Option("--pooling", help=POOLING_HELP)]
STEPS_HELP = (
    "The length of the training: about epochs * words in the corpus / words per batch. It sets max_steps, total_steps, "
    "warmup_steps (10 %) and eval_frequency (about a sixth) together. Default: by the base and the device"
)
Steps = Annotated[int | None, Option("--steps", min=1, help=STEPS_HELP)]
Force = Annotated[bool, Option("--force", "-F", help="Write over an existing file")]


@app.command("init-config")
def init_config_cli(
    output: OutputPath,
    lang: Lang = "en",
    pipeline: Pipeline = "ner,textcat",
    base: Base = "Qwen/Qwen2.5-0.5B",
    device: DeviceOption = DeviceName.cpu,
    unmask: Unmask = "all",
    repeat: Repeat = 0,
    pooling: Pooling = None,
    steps: Steps = None,
    force: Force = False,
) -> None:
    """Write a complete config for spacy train: a bidirectional LLM and the components that listen to it.

    Nothing is downloaded and no weights are read. If the base is a local folder, settings are chosen to fit its size;
    otherwise they depend on --device alone. The trained pipeline only refers to the base (store_base = "reference");
    set store_base = "copy" for a self-contained package. Edit the file, or override settings when you train, such as
    --training.batcher.size 1000. The length of the training is in four settings, which --steps sets together.

    Example: python -m spacy lsbillm init-config ner.cfg --pipeline ner --base Qwen/Qwen2.5-0.5B --device gpu
    """
    to_stdout = str(output) == "-"
    msg = Printer(no_print=to_stdout)
    try:
        if not to_stdout and output.exists() and not force:
            raise ValueError(f"{output} exists. Use --force to write over it, or another name.")
        size = size_of_base(base)
        fitted = None if size is None else fitted_to(size)
        text = config_text(lang, component_names(pipeline), base, device.value, unmask, pooling, fitted, repeat, steps)
        if not to_stdout:
            write_text(output, text)
    except (ValueError, OSError, ImportError) as error:
        Printer().fail("Cannot make a config", str(error), exits=1)
    if to_stdout:
        print(text, end="")
    msg.good(f"Saved a complete config: {output}")
    for line in reasons(base, size, fitted, device.value, steps):
        msg.text(line)
    if device == DeviceName.gpu:
        msg.text(
            "spaCy needs CuPy to use a GPU, cupy-cuda13x or cupy-cuda12x as torch.version.cuda is: https://docs.cupy.dev/en/stable/install.html"
        )
    msg.text("Train with:")
    if not to_stdout:
        print(train_command(output, device.value))


def size_of_base(base: str) -> BaseSize | None:
    """How large a base is; None if it is not at hand.

    RAISES (SettingError): It is no name.
    RAISES (BaseError): It is a folder that holds no base that can be used.
    """
    folder = local_folder(BaseSettings(base).name)
    return None if folder is None else size_of(folder)


def reasons(
    base: str, size: BaseSize | None, fitted: Fitted | None, device: str, steps: int | None = None
) -> list[str]:
    """Why the settings are what they are, a line each."""
    chosen = DEVICES[device]
    by_device = f"dtype = {chosen.dtype}, max_batch_items = {chosen.max_batch_items}: for --device {device}"
    if size is None or fitted is None:
        amount = f", max_steps = {chosen.steps}" if steps is None else ""
        asked = [] if steps is None else [_length(steps, chosen.batch_words)]
        return [
            f"The base {base} is not a local folder, so its size is not known: the settings are those of the device.",
            f"learn_rate = {chosen.learn_rate:g}{amount}: for --device {device}. Name a local folder for rates that "
            f"fit its size",
            *asked,
            by_device,
        ]
    amount = f"max_steps = {chosen.steps} of {chosen.batch_words} words: for --device {device}"
    if device == "cpu":
        amount = f"max_steps = {fitted.cpu_steps} of {fitted.cpu_batch_words} words: what a CPU can do with such a base"
    if steps is not None:
        amount = _length(steps, fitted.cpu_batch_words if device == "cpu" else chosen.batch_words)
    return [
        f"The base has {size}.",
        f"learn_rate = {fitted.learn_rate:g}, of the heads: {fitted.source}",
        f"learn_rate_scale = {fitted.learn_rate_scale:g}, so that the adapter has "
        f"{fitted.learn_rate * fitted.learn_rate_scale:g}: the same",
        f"lora.r = {fitted.r}, lora.alpha = {fitted.alpha}, on all linear layers: the same",
        f"warmup_steps: {fitted.warmup:.0%} of the steps: the same",
        f"window = null: {default_window(size.longest, size.width)} pieces here; in longer ones attention costs more",
        f"depth = null: all {size.layers} layers; fewer are faster, and with a few hundred examples they can be better",
        amount,
        by_device,
    ]


def _length(steps: int, batch_words: int) -> str:
    """What --steps has set."""
    schedule = schedule_of(steps)
    return (
        f"max_steps = total_steps = {steps} of {batch_words} words, warmup_steps = {schedule.warmup}, "
        f"eval_frequency = {schedule.eval_frequency}: for --steps {steps}"
    )


def component_names(pipeline: str) -> list[str]:
    """The components in a list with commas. The transformer is always there, and may be named."""
    names = [name.strip() for name in pipeline.split(",")]
    return [name for name in names if name and name != TRANSFORMER]


def config_text(
    lang: str,
    pipeline: list[str],
    base: str,
    device: str,
    unmask: str,
    pooling: str | None = None,
    fitted: Fitted | None = None,
    repeat: int = 0,
    steps: int | None = None,
) -> str:
    """The config as it is written.

    RAISES (ValueError): One of the arguments is not allowed.
    """
    config = training_config(
        base,
        lang=lang,
        pipeline=pipeline,
        device=device,
        fitted=fitted,
        steps=steps,
        pooling=pooling,
        unmask=check_notation(unmask),
        repeat=repeat,
    )
    return config.to_str(interpolate=False) + "\n"


def train_command(config: Path, device: str) -> str:
    """The command that trains with a config, its corpora still to be named."""
    gpu = " --gpu-id 0" if device == "gpu" else ""
    return (
        f"{COMMAND} train {shlex.quote(str(config))} --output training{gpu} "
        f"--paths.train train.spacy --paths.dev dev.spacy"
    )
