"""`python -m spacy lsbillm fit`: estimate the memory and time that a base takes."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from typer import Argument, Exit, Option
from wasabi import msg, table

from ..backbone import LoraSettings
from ..backbone.base_shape import BaseShape, shape_of
from ..backbone.footprint import CPU, GPU, Work
from ..backbone.free_memory import free_memory
from ..backbone.location import TOKENIZER_FILES, resolve_folder
from ..backbone.pace import PREDICTION, TRAINING
from ..backbone.size import in_words
from ..errors import SettingError
from ..files import write_text
from ..training.fit import Estimate, Wanted, advice, as_json, estimates_of, fits, settings_of, work_for
from . import app
from .options import DeviceName, JsonOption, RevisionOption

GIBIBYTE, MEBIBYTE = 2**30, 2**20
# From benchmarks/results/fit.json.
OFF = (
    "These are estimates. On a CPU, with two bases, training took 0.8 to 1.2 times the estimated memory and reached\n"
    "0.6 to 1.6 times the estimated speed."
)

BaseArgument = Annotated[str, Argument(help="The base model: a Hugging Face folder, or a hub id. No weights are read")]
DepthOption = Annotated[int | None, Option("--depth", min=1, help="Use only the first layers. Default: all")]
DtypeOption = Annotated[
    str | None,
    Option("--dtype", help="float32, bfloat16, float16, or auto. Default: float32 and bfloat16 are compared"),
]
QuantizationOption = Annotated[
    str | None, Option("--quantization", help="none, nf4, fp4 or int8. Default: none and nf4 are compared")
]
CheckpointingOption = Annotated[
    bool | None,
    Option(
        "--gradient-checkpointing/--no-gradient-checkpointing",
        help="Compute states again in the backward pass instead of keeping them. Default: both are compared",
    ),
]
RepeatOption = Annotated[int, Option("--repeat", min=0, help="Copies of a text before the one whose states are used")]
BatchOption = Annotated[
    int | None,
    Option("--batch-pieces", min=1, help="Pieces in a training batch. Default: those of init-config's number of words"),
]
RankOption = Annotated[int, Option("--rank", min=0, help="Rank of the adapter; 0 for a frozen base without one")]
TargetsOption = Annotated[
    str, Option("--target-modules", help="Linear layers with an adapter: all-linear, or names separated by commas")
]
ExamplesOption = Annotated[int | None, Option("--examples", min=1, help="Training documents, for the estimated time")]
EpochsOption = Annotated[int, Option("--epochs", min=1, help="How often each of --examples is trained on")]
LengthOption = Annotated[
    int, Option("--example-pieces", min=1, help="Pieces in one of --examples; a word has about 1.3 in English")
]
DeviceOption = Annotated[
    DeviceName | None, Option("--device", "-d", help="Where you will train. Default: gpu if torch sees one, else cpu")
]
MemoryOption = Annotated[
    float | None,
    Option("--memory", help="Memory of another machine, in GiB. Default: what is free on this one now"),
]


@app.command("fit")
def fit_cli(
    base: BaseArgument,
    depth: DepthOption = None,
    dtype: DtypeOption = None,
    quantization: QuantizationOption = None,
    gradient_checkpointing: CheckpointingOption = None,
    repeat: RepeatOption = 0,
    batch_pieces: BatchOption = None,
    rank: RankOption = 16,
    target_modules: TargetsOption = "all-linear",
    examples: ExamplesOption = None,
    epochs: EpochsOption = 3,
    example_pieces: LengthOption = 20,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    revision: RevisionOption = None,
    json_file: JsonOption = None,
) -> None:
    """Estimate whether a base fits the memory of a machine, and how long training and prediction take.

    Memory is computed from config.json alone: weights, adapter with its optimizer, and what a training batch keeps for
    the backward pass. Settings that you leave open are compared, and the table says which combinations fit; if no
    training fits, the command says what to change, and the exit status is 1. Speed is estimated from the number of
    operations and from a measurement of this machine that takes about a second for each dtype.

    Example: python -m spacy lsbillm fit Qwen/Qwen2.5-0.5B --device gpu --memory 24
    """
    try:
        chosen, here = _device(device, memory)
        wanted = Wanted(base, dtype, quantization, gradient_checkpointing, depth)
        lora = _lora(rank, target_modules)
        wanted.check()
        folder = resolve_folder(base, revision, TOKENIZER_FILES)
        shape = shape_of(folder, base, lora)
        work = work_for(shape, chosen, repeat, batch_pieces)
        settings = list(settings_of(wanted, shape, chosen))
        available = round(memory * GIBIBYTE) if memory is not None else free_memory(here or torch.device("cpu"))
        if available is None:
            raise SettingError("this system does not report its free memory: name it, in GiB, such as --memory 16.")
        estimates = estimates_of(shape, settings, work, here)
        changes = advice(shape, estimates, work, available)
        seconds = None if examples is None else _seconds(estimates, examples * epochs * example_pieces)
        if json_file is not None:
            content = _content(base, shape, work, available, estimates, seconds, changes)
            write_text(json_file, json.dumps(content, indent=2) + "\n")
    except (ValueError, OSError) as error:
        msg.fail("Cannot estimate", str(error), exits=1)
    msg.divider(base)
    _print_base(shape, work, available, memory is None)
    _print_table(estimates, available, seconds)
    _print_notes(estimates, available, examples, epochs, example_pieces)
    if changes:
        msg.fail("No training fits. What you can change, of the smallest of these:")
        print("\n".join(f"- {change}" for change in changes))
        raise Exit(1)
    first = next(one for one in estimates if fits(one, available)[TRAINING])
    msg.good(f"Training fits with {first.in_words}")


def _device(asked: DeviceName | None, memory: float | None) -> tuple[str, torch.device | None]:
    """The kind of device, and the device of this machine whose speed is measured; None: it is another machine's.

    RAISES (SettingError): It is not here, and its memory is not given.
    """
    if memory is not None and not memory > 0:
        raise SettingError(f"--memory {memory:g} is not allowed: it must be a number of GiB above 0.")
    gpu = torch.cuda.is_available()
    chosen = (GPU if gpu else CPU) if asked is None else asked.value
    if chosen == CPU:
        return chosen, torch.device("cpu")
    if gpu:
        return chosen, torch.device("cuda", torch.cuda.current_device())
    if memory is None:
        raise SettingError("--device gpu: torch sees no GPU here. Name the memory of the one you mean: --memory 24.")
    return chosen, None


def _lora(rank: int, targets: str) -> LoraSettings | None:
    """The adapter.

    RAISES (AdapterError): The names of its modules cannot be used.
    """
    if rank == 0:
        return None
    if targets == "all-linear":
        return LoraSettings(r=rank)
    return LoraSettings(r=rank, target_modules=tuple(name.strip() for name in targets.split(",")))


def _seconds(estimates: Sequence[Estimate], pieces: int) -> list[float | None]:
    """How long the training takes with each combination of settings; None: unknown."""
    return [pieces / one.pieces_per_second[TRAINING] if one.pieces_per_second else None for one in estimates]


def _print_base(shape: BaseShape, work: Work, available: int, free: bool) -> None:
    print(f"{shape.size}")
    if shape.lora is None:
        print("No adapter: the base stays frozen")
    else:
        targets = shape.lora.target_modules
        named = targets if isinstance(targets, str) else ", ".join(targets)
        print(f"Adapter: r = {shape.lora.r}, {named}: {in_words(shape.adapter_parameters())} parameters")
    copies = f", each text {work.repeat + 1} times" if work.repeat else ""
    print(f"A batch of {work.batch_pieces:,} pieces, in rows of {work.length}{copies}")
    print(f"Memory: {_size(available)}{' free' if free else ''} ({work.device.upper()})")


def _print_table(estimates: Sequence[Estimate], available: int, seconds: Sequence[float | None] | None) -> None:
    header = ["dtype", "quantization", "checkpointing", "weights", "adapter", "activations", "training", "prediction"]
    header += ["fits", "trained/s", "predicted/s"] + ([] if seconds is None else ["time"])
    rows = []
    for number, one in enumerate(estimates):
        base, footprint = one.settings.base, one.footprint
        sizes = (footprint.weights, footprint.adapter + footprint.optimizer, footprint.activations)
        row = [base.dtype, base.quantization or "none", "yes" if one.settings.gradient_checkpointing else "no"]
        row += map(_size, (*sizes, footprint.training, footprint.prediction))
        row.append(_what_fits(one, available))
        row += [_number(one.pieces_per_second.get(what)) for what in (TRAINING, PREDICTION)]
        if seconds is not None:
            row.append(_duration(seconds[number]))
        rows.append(row)
    words = ("dtype", "quantization", "checkpointing", "fits")
    print(table(rows, header=header, divider=True, aligns=["l" if name in words else "r" for name in header]))


def _print_notes(
    estimates: Sequence[Estimate], available: int, examples: int | None, epochs: int, example_pieces: int
) -> None:
    copied = max(one.footprint.second_copy for one in estimates)
    print("training = weights + adapter with its optimizer + activations of a batch; Python and its libraries take")
    print("some 0.7 GiB of main memory more.")
    if copied:
        print(
            f"prediction: up to {_size(copied)} more for a second copy of the weights, with the adapter folded in, if"
        )
        print('that is at most half of the free memory (fold_adapter = "auto").')
    print("trained/s, predicted/s: pieces per second, from a measurement of this machine; - where there is none.")
    if examples is not None:
        print(f"time: {examples:,} documents of {example_pieces} pieces, {epochs} times, without evaluations.")
    print(OFF)


def _what_fits(estimate: Estimate, available: int) -> str:
    fitting = fits(estimate, available)
    return "yes" if fitting[TRAINING] else ("prediction" if fitting[PREDICTION] else "no")


def _size(number: int) -> str:
    """Bytes in MiB or GiB."""
    if number < GIBIBYTE:
        return f"{number / MEBIBYTE:,.0f} MiB"
    return f"{number / GIBIBYTE:,.1f} GiB"


def _number(number: float | None) -> str:
    """Two digits, as estimates are no more exact."""
    if number is None:
        return "-"
    return f"{float(f'{number:.2g}'):,.0f}" if number >= 10 else f"{number:.2g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _content(
    base: str,
    shape: BaseShape,
    work: Work,
    available: int,
    estimates: Sequence[Estimate],
    seconds: Sequence[float | None] | None,
    changes: Sequence[str],
) -> dict[str, Any]:
    """What the JSON file holds."""
    entries = [as_json(one, available) for one in estimates]
    if seconds is not None:
        entries = [{**entry, "seconds": number} for entry, number in zip(entries, seconds, strict=True)]
    return {
        "base": base,
        "parameters": shape.size.parameters,
        "adapter_parameters": shape.adapter_parameters(),
        "memory": available,
        "work": vars(work),
        "estimates": entries,
        "changes": list(changes),
    }
