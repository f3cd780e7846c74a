"""`python -m spacy lsbillm pretrain`: train a small base on plain text."""

from pathlib import Path
from typing import Annotated, Any

from spacy.cli._util import parse_config_overrides
from spacy.util import load_config
from typer import Argument, Context, Option
from wasabi import msg

from ..errors import SettingError
from ..pretraining import PretrainingSettings, pretrain
from ..pretraining.run import Places
from . import app
from .device import device_of
from .options import GpuOption, WorkResumeOption

OutputArgument = Annotated[Path, Argument(help="Folder for the finished model; must not exist or must be empty")]
TextOption = Annotated[
    list[Path], Option("--text", "-t", help="Text to train on: .txt or .txt.xz files, or folders of them")
]
ValidOption = Annotated[list[Path], Option("--valid", "-v", help="Held-out text, in the same formats")]
ConfigOption = Annotated[
    Path | None,
    Option("--config", "-c", help="Config file. Default: the settings of the shipped base, without torch.compile"),
]
ObjectiveOption = Annotated[
    str | None,
    Option(
        "--objective",
        "-o",
        help="clm: a decoder that predicts the next token. mlm: an encoder that predicts hidden tokens",
    ),
]
TokenizerOption = Annotated[
    Path | None, Option("--tokenizer", help="Folder of an existing tokenizer. Default: train one on the text")
]
WorkOption = Annotated[
    Path | None, Option("--work", "-w", help="Folder for tokens and checkpoints. Default: OUTPUT.work")
]


@app.command("pretrain", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def pretrain_cli(
    ctx: Context,
    output: OutputArgument,
    text: TextOption,
    valid: ValidOption,
    config: ConfigOption = None,
    objective: ObjectiveOption = None,
    tokenizer: TokenizerOption = None,
    work: WorkOption = None,
    resume: WorkResumeOption = False,
    gpu_id: GpuOption = -1,
) -> None:
    """Pre-train a small base on plain text: a Hugging Face folder with tokenizer, weights and model card.

    Text is UTF-8; blank lines separate documents. It is tokenized once, into the work folder. An interrupted run
    resumes with --resume and gives the same result. Every setting of the config can be given as an option, such as
    --training.tokens 1000000 or --model.layers 4.

    Example: python -m spacy lsbillm pretrain my_base --text books/ --valid held_out.txt --training.tokens 10000000
    """
    try:
        settings = read_settings(config, parse_config_overrides(ctx.args), objective)
        places = Places(text, valid, output, work or output.with_name(output.name + ".work"), tokenizer)
        device = device_of(gpu_id)
        record = pretrain(settings, places, device, resume)
    except (ValueError, OSError) as error:
        msg.fail("Cannot pre-train", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped. Use --resume to continue from the last checkpoint.", exits=130)
    for name, value in record["held_out"].items():
        print(f"{name.replace('_', ' ')}: {value:.3f}")
    msg.good(f"Saved the model in {output}. Look at its README.md, and add the licences of its text.")
    msg.text(f"{places.work} is no longer needed.")


def read_settings(config: Path | None, overrides: dict[str, Any], objective: str | None) -> PretrainingSettings:
    """The settings of a config file or the defaults, with what options override.

    RAISES (ValueError): The file cannot be read, or a setting is unknown or out of its range.
    """
    if config is not None and not config.is_file():
        raise SettingError(f"there is no config file {str(config)!r}.")
    sections = dict(load_config(config, interpolate=True)) if config else PretrainingSettings().as_sections()
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    if objective is not None:
        sections.setdefault("training", {})["objective"] = objective
    return PretrainingSettings.read(sections)
