"""`python -m spacy lsbillm perplexity`: how well a base predicts text."""

import json
from pathlib import Path
from typing import Annotated

import torch
from transformers import AutoModelForCausalLM
from typer import Argument, Option
from wasabi import msg, table

from ..backbone import BaseSettings, longest_position
from ..backbone.base import load_causal_lm, load_tokenizer, read_config, resolve_folder
from ..errors import SettingError
from ..pretraining import Score, score_text
from ..pretraining.run import OBJECTIVE_KEY
from ..pretraining.text import text_files
from . import app
from .device import HELP, device_of
from .output import write_text

# Of a window, where the base allows longer ones: the loss changes little beyond, the time of attention grows.
LONGEST = 2048
BaseArgument = Annotated[str, Argument(help="The base: its folder or hub id")]
TextArgument = Annotated[list[Path], Argument(help="Text: .txt or .txt.xz files, or folders of them")]
RevisionOption = Annotated[str | None, Option("--revision", help="The hub revision of the base")]
DtypeOption = Annotated[str, Option("--dtype", help="float32, bfloat16, float16, or auto for the stored one")]
LengthOption = Annotated[
    int | None, Option("--length", "-l", help=f"Positions a window; without it, all the base has, at most {LONGEST}")
]
OverlapOption = Annotated[
    int, Option("--overlap", help="Tokens of context a window takes from the one before: slower, and a lower loss")
]
RandomOption = Annotated[
    bool, Option("--random/--no-random", help="Also score a model of the same shape with random weights")
]
JsonOption = Annotated[Path | None, Option("--json", "-j", help="Also write the numbers to this JSON file")]
GpuOption = Annotated[int, Option("--gpu-id", "-g", help=HELP)]


@app.command("perplexity")
def perplexity_cli(
    base: BaseArgument,
    text: TextArgument,
    revision: RevisionOption = None,
    dtype: DtypeOption = "float32",
    length: LengthOption = None,
    overlap: OverlapOption = 0,
    random: RandomOption = True,
    json_file: JsonOption = None,
    gpu_id: GpuOption = -1,
) -> None:
    """Show how well a base predicts text: nats a token, perplexity, and bits a byte.

    Bits a byte do not depend on the tokenizer, so that all models can be compared by them; lower is better. Text is
    UTF-8, and blank lines separate documents. It is read in windows that, without --overlap, start without context:
    the figure is then an upper bound.

    Example: python -m spacy lsbillm perplexity assets/base held_out.txt
    """
    try:
        device = device_of(gpu_id)
        files = text_files(text)
        settings = BaseSettings(name=base, revision=revision, dtype=dtype)
        scores = score_base(settings, files, length=length, overlap=overlap, random=random, device=device)
        if json_file is not None:
            write_text(json_file, json.dumps({name: as_dict(score) for name, score in scores.items()}, indent=2) + "\n")
    except (ValueError, OSError) as error:
        msg.fail("Cannot score the text", str(error), exits=1)
    header = ("", "bits a byte", "nats a token", "perplexity", "tokens", "bytes")
    rows = [
        (name, f"{s.bits_a_byte:.3f}", f"{s.nats_a_token:.3f}", f"{s.perplexity:,.1f}", f"{s.tokens:,}", f"{s.bytes:,}")
        for name, s in scores.items()
    ]
    print(table(rows, header=header, divider=True, aligns=("l", "r", "r", "r", "r", "r")))


def score_base(
    settings: BaseSettings,
    files: list[Path],
    *,
    length: int | None,
    overlap: int,
    random: bool,
    device: torch.device,
) -> dict[str, Score]:
    """The scores of a base, and of random weights of its shape.

    RAISES (ValueError): The base cannot be had or is no causal language model, or a window does not fit it.
    """
    folder = resolve_folder(settings.name, settings.revision)
    config = read_config(folder, settings)
    if getattr(config, OBJECTIVE_KEY, "clm") == "mlm":
        raise SettingError(
            f"{settings.name!r} is an encoder, trained to predict hidden tokens: it has no left-to-right perplexity."
        )
    longest = longest_position(config) or LONGEST
    if length is not None and not 2 <= length <= longest:
        raise SettingError(f"--length {length} is not allowed: {settings.name!r} has 2 to {longest} positions.")
    tokenizer = load_tokenizer(folder)
    window = length or min(longest, LONGEST)
    scores = {}
    model = load_causal_lm(folder, settings, device)
    scores[settings.name] = score_text(model, tokenizer, files, length=window, overlap=overlap, label=settings.name)
    if random:
        dtype = next(model.parameters()).dtype
        del model
        torch.manual_seed(0)
        untrained = AutoModelForCausalLM.from_config(config).to(device=device, dtype=dtype).eval()
        scores["random weights"] = score_text(
            untrained, tokenizer, files, length=window, overlap=overlap, label="random weights"
        )
    return scores


def as_dict(score: Score) -> dict[str, float]:
    """For a file."""
    return {
        "bits_a_byte": score.bits_a_byte,
        "nats_a_token": score.nats_a_token,
        "perplexity": score.perplexity,
        "tokens": score.tokens,
        "bytes": score.bytes,
    }
