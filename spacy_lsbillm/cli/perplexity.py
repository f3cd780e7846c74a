"""`python -m spacy lsbillm perplexity`: how well a base, or a tuned pipeline's model, predicts text."""

import json
from pathlib import Path
from typing import Annotated

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from typer import Argument, Option
from wasabi import msg, table

from ..backbone import BaseSettings, longest_position
from ..backbone.base_config import read_config
from ..backbone.location import resolve_folder
from ..errors import SettingError
from ..files import write_text
from ..language_model import Score, score_text, text_files
from ..language_model.readings import Reading, base_reading, continuation, pipeline_readings
from ..pretraining.run import OBJECTIVE_KEY
from . import app
from .device import device_of
from .options import GpuOption, JsonOption, RevisionOption

# The default window where the base allows longer ones: beyond it the loss changes little, but attention takes longer.
LONGEST = 2048
RANDOM = "random weights"
SourceArgument = Annotated[str, Argument(help="A base (its folder or hub id), or the folder of a trained pipeline")]
TextArgument = Annotated[list[Path], Argument(help="Text: .txt or .txt.xz files, or folders of them")]
DtypeOption = Annotated[
    str,
    Option(
        "--dtype",
        help="Dtype of a base: float32, bfloat16, float16, or auto for the stored one. A pipeline has its own",
    ),
]
LengthOption = Annotated[
    int | None, Option("--length", "-l", help=f"Pieces per window. Default: the base's maximum, at most {LONGEST}")
]
OverlapOption = Annotated[
    int, Option("--overlap", help="Pieces of context from the previous window: slower, and a lower loss")
]
RandomOption = Annotated[
    bool, Option("--random/--no-random", help="Also score a model of the same shape with random weights")
]
SampleOption = Annotated[str | None, Option("--sample", "-s", help="Also continue this prompt with each of the models")]
TokensOption = Annotated[int, Option("--tokens", help="Number of tokens to generate with --sample")]
TemperatureOption = Annotated[
    float, Option("--temperature", help="Sampling temperature for --sample; 0 is greedy decoding")
]
SeedOption = Annotated[int, Option("--seed", help="Random seed for --sample")]
ComponentOption = Annotated[
    str | None, Option("--component", "-c", help="Name of the billm_transformer, if the pipeline has several")
]


@app.command("perplexity")
def perplexity_cli(
    source: SourceArgument,
    text: TextArgument,
    revision: RevisionOption = None,
    dtype: DtypeOption = "float32",
    length: LengthOption = None,
    overlap: OverlapOption = 0,
    random: RandomOption = True,
    sample: SampleOption = None,
    tokens: TokensOption = 40,
    temperature: TemperatureOption = 0.8,
    seed: SeedOption = 0,
    component: ComponentOption = None,
    json_file: JsonOption = None,
    gpu_id: GpuOption = -1,
) -> None:
    """Measure how well a model predicts text: nats per token, perplexity and bits per byte.

    Bits per byte do not depend on the tokenizer, so any two models can be compared; lower is better. Text is UTF-8;
    blank lines separate documents. It is scored in windows that start without context unless --overlap is set, so the
    figures are upper bounds.

    For a trained pipeline, three models are scored: its base, the tuned model with all layers causal, and the tuned
    model with the adapter switched off, which equals the base.

    Example: python -m spacy lsbillm perplexity assets/base held_out.txt --sample "The river"
    """
    try:
        device = device_of(gpu_id)
        files = text_files(text)
        if tokens < 1 or temperature < 0:
            raise SettingError(f"--tokens {tokens}, --temperature {temperature}: use at least 1, and at least 0.")
        readings = readings_of(BaseSettings(name=source, revision=revision, dtype=dtype), component, device)
        window = fitted_length(readings[0], length)
        if random:
            readings.append(random_reading(readings[0]))
        scores = {one.name: score_reading(one, files, window, overlap) for one in readings}
        written = {one.name: continuation(one, sample, tokens, seed, temperature) for one in readings} if sample else {}
        if json_file is not None:
            content = {name: as_dict(score) for name, score in scores.items()}
            if written:
                content = {name: {**numbers, "continuation": written[name]} for name, numbers in content.items()}
            write_text(json_file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except (ValueError, OSError) as error:
        msg.fail("Cannot score the text", str(error), exits=1)
    header = ("", "bits per byte", "nats per token", "perplexity", "tokens", "bytes")
    rows = [
        (
            name,
            f"{s.bits_per_byte:.3f}",
            f"{s.nats_per_token:.3f}",
            f"{s.perplexity:,.1f}",
            f"{s.tokens:,}",
            f"{s.bytes:,}",
        )
        for name, s in scores.items()
    ]
    print(table(rows, header=header, divider=True, aligns=("l", "r", "r", "r", "r", "r")))
    for name, continued in written.items():
        msg.divider(name)
        print(f"{sample}|{continued}\n")


def readings_of(settings: BaseSettings, component: str | None, device: torch.device) -> list[Reading]:
    """The readings of a base, which is one, or of a pipeline, which are three.

    RAISES (ValueError): It is not available, or is not a causal language model.
    """
    if (Path(settings.name) / "config.cfg").is_file():
        readings = pipeline_readings(Path(settings.name), device, component)
        _check_decoder(readings[0].model.config, settings.name)
        return readings
    _check_decoder(read_config(resolve_folder(settings.name, settings.revision), settings), settings.name)
    return [base_reading(settings, device, settings.name)]


def random_reading(like: Reading) -> Reading:
    """A reading of a model of the same shape with random weights, the same ones each time."""
    weight = next(like.model.parameters())
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(like.model.config)
    return Reading(RANDOM, model.to(device=weight.device, dtype=weight.dtype).eval(), like.tokenizer)


def fitted_length(reading: Reading, length: int | None) -> int:
    """The number of positions per window.

    RAISES (SettingError): The base does not have that many.
    """
    longest = longest_position(reading.model.config) or LONGEST
    if length is not None and not 2 <= length <= longest:
        raise SettingError(f"--length {length} is not allowed: the base has 2 to {longest} positions.")
    return length or min(longest, LONGEST)


def score_reading(reading: Reading, files: list[Path], length: int, overlap: int) -> Score:
    """Score a text with the model of a reading."""
    with reading.model_as_read() as model:
        return score_text(model, reading.tokenizer, files, length=length, overlap=overlap, label=reading.name)


def _check_decoder(config: object, name: str) -> None:
    if getattr(config, OBJECTIVE_KEY, "clm") == "mlm":
        raise SettingError(
            f"{name!r} is an encoder, trained to predict hidden tokens: it has no left-to-right perplexity."
        )


def as_dict(score: Score) -> dict[str, float | str]:
    """The figures of a score, as they are written to a JSON file."""
    return {
        "bits_per_byte": score.bits_per_byte,
        "nats_per_token": score.nats_per_token,
        "perplexity": score.perplexity,
        "tokens": score.tokens,
        "bytes": score.bytes,
    }
