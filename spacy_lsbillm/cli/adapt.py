"""`python -m spacy lsbillm adapt`: an existing base, trained further with its layers unmasked."""

from pathlib import Path
from typing import Annotated

from spacy.cli._util import parse_config_overrides
from typer import Argument, Context, Option
from wasabi import msg

from ..adaptation import AdaptationPlaces, AdaptationSettings, adapt
from ..adaptation.settings import ALL, LORA, OBJECTIVES, OUTPUT_KINDS, RATES, TRAIN
from ..backbone import BaseSettings
from ..backbone.base import DTYPES, QUANTIZATIONS
from ..errors import SettingError
from ..pretraining.settings import PRECISIONS
from . import app
from .device import device_of
from .options import GpuOption, RevisionOption, WorkResumeOption

DEFAULT = AdaptationSettings()
BaseArgument = Annotated[str, Argument(help="The base: its folder or hub id")]
TextArgument = Annotated[Path, Argument(help="Text to train on: a .txt or .txt.xz file, or a folder of them")]
OutputArgument = Annotated[Path, Argument(help="Folder for the result; must not exist or must be empty")]
ValidOption = Annotated[
    list[Path] | None,
    Option("--valid", "-v", help="Held-out text, in the same formats. Default: every 20th document of TEXT"),
]
ObjectiveOption = Annotated[
    str,
    Option(
        "--objective",
        "-o",
        help=f"{', '.join(OBJECTIVES)}: predict a masked piece from the state before it; from its own state; "
        f"or, as a control, predict the next piece under a causal mask",
    ),
]
UnmaskOption = Annotated[
    str,
    Option(
        "--unmask", help="Layers that attend in both directions: all, from:8, layers:4-7, 0011. Default: all layers"
    ),
]
ShareOption = Annotated[float, Option("--mask-share", help="Fraction of pieces to mask, between 0 and 1")]
PieceOption = Annotated[
    str | None,
    Option(
        "--mask-piece",
        help="Token that replaces a masked piece. Default: the tokenizer's mask token, else _, else unknown",
    ),
]
TrainOption = Annotated[
    str,
    Option(
        "--train", help=f"{' or '.join(TRAIN)}: train all weights, or only an adapter with settings such as --lora.r 8"
    ),
]
TokensOption = Annotated[int, Option("--tokens", help="Number of pieces to train on; TEXT is repeated if it has fewer")]
RateOption = Annotated[
    float | None,
    Option("--rate", help=f"Peak learning rate. Default: {RATES[ALL]} for all, {RATES[LORA]} for lora"),
]
WarmupOption = Annotated[int, Option("--warmup", help="Warm-up steps to the peak rate; a cosine decay follows")]
LengthOption = Annotated[
    int | None, Option("--length", "-l", help="Pieces per row. Default: the base's maximum, at most 512")
]
BatchOption = Annotated[int, Option("--batch", help="Rows per optimizer step")]
MicroOption = Annotated[int | None, Option("--micro-batch", help="Rows per forward pass. Default: all rows of a step")]
DecayOption = Annotated[float, Option("--weight-decay", help="AdamW weight decay, applied to matrices only")]
SeedOption = Annotated[
    int, Option("--seed", help="Random seed for row order, masking, adapter initialisation and dropout")
]
PrecisionOption = Annotated[str, Option("--precision", help=f"Precision of the computation: {', '.join(PRECISIONS)}")]
QuantizationOption = Annotated[
    str | None,
    Option("--quantization", help=f"Quantize the base, with --train lora: {', '.join(q for q in QUANTIZATIONS if q)}"),
]
EveryOption = Annotated[int, Option("--checkpoint-every", help="Steps between checkpoints")]
MergeOption = Annotated[
    float, Option("--merge", help="Interpolate between the original weights (0.0) and the adapted ones (1.0)")
]
KindOption = Annotated[
    str,
    Option(
        "--output-kind",
        help=f"{' or '.join(OUTPUT_KINDS)}: a complete base folder, or with --train lora only the adapter",
    ),
]
DtypeOption = Annotated[
    str, Option("--dtype", help=f"Dtype of the stored result: {', '.join(DTYPES)}; auto keeps the base's")
]
WorkOption = Annotated[
    Path | None, Option("--work", "-w", help="Folder for pieces and checkpoints. Default: OUTPUT.work")
]


@app.command("adapt", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def adapt_cli(
    ctx: Context,
    base: BaseArgument,
    text: TextArgument,
    output: OutputArgument,
    valid: ValidOption = None,
    objective: ObjectiveOption = DEFAULT.objective,
    unmask: UnmaskOption = "",
    mask_share: ShareOption = DEFAULT.mask_share,
    mask_piece: PieceOption = None,
    train: TrainOption = DEFAULT.train,
    tokens: TokensOption = DEFAULT.tokens,
    rate: RateOption = None,
    warmup: WarmupOption = DEFAULT.warmup_steps,
    length: LengthOption = None,
    batch: BatchOption = DEFAULT.batch,
    micro_batch: MicroOption = None,
    weight_decay: DecayOption = DEFAULT.weight_decay,
    seed: SeedOption = DEFAULT.seed,
    precision: PrecisionOption = DEFAULT.precision,
    quantization: QuantizationOption = None,
    checkpoint_every: EveryOption = DEFAULT.checkpoint_every,
    merge: MergeOption = DEFAULT.merge,
    output_kind: KindOption = DEFAULT.output_kind,
    dtype: DtypeOption = DEFAULT.dtype,
    revision: RevisionOption = None,
    work: WorkOption = None,
    resume: WorkResumeOption = False,
    gpu_id: GpuOption = -1,
) -> None:
    """Continue training a base on plain text with its layers unmasked.

    So it learns to attend in both directions before it is tuned on a task.

    Text is UTF-8; blank lines separate documents, which share rows without attending to each other. An interrupted run
    resumes with --resume and gives the same result. After a finished run, the same command with --resume and --work
    writes another OUTPUT with a different --merge, --output-kind or --dtype, without training again.

    The result is an ordinary base: set name = "OUTPUT". With --output-kind adapter it is an adapter in peft's format.

    Example: python -m spacy lsbillm adapt assets/base books/ my_base --tokens 1000000
    """
    try:
        if rate is not None and rate <= 0:
            raise SettingError(f"--rate {rate} is not allowed: it must be a number above 0, at most 1.")
        settings = AdaptationSettings.read(
            {
                "objective": objective,
                "unmask": unmask,
                "mask_share": mask_share,
                "mask_piece": mask_piece,
                "train": train,
                "tokens": tokens,
                "length": length,
                "batch": batch,
                "micro_batch": batch if micro_batch is None else micro_batch,
                "learn_rate": 0.0 if rate is None else rate,
                "warmup_steps": warmup,
                "weight_decay": weight_decay,
                "precision": precision,
                "checkpoint_every": checkpoint_every,
                "seed": seed,
                "merge": merge,
                "output_kind": output_kind,
                "dtype": dtype,
            },
            _lora_of(parse_config_overrides(ctx.args)),
        )
        start = BaseSettings(name=base, revision=revision, quantization=quantization)
        places = AdaptationPlaces([text], valid or [], output, work or output.with_name(output.name + ".work"))
        record = adapt(start, settings, places, device_of(gpu_id), resume)
    except (ValueError, OSError) as error:
        msg.fail("Cannot adapt the base", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped. Go on from the last checkpoint with --resume.", exits=130)
    held_out = record["held_out"]
    print(f"held-out text after: {held_out['after']:.3f} nats per predicted piece (before: {held_out['before']:.3f})")
    if record["seconds"]:
        print(f"{record['tokens_seen'] / record['seconds']:,.0f} pieces per second")
    msg.good(f"Saved the {output_kind} in {output}. Look at its README.md, and add the licences of its text.")
    msg.text(f"{places.work} is needed only to make another result of this run.")


def _lora_of(overrides: dict[str, object]) -> dict[str, object]:
    """Collect the settings of the adapter from the remaining options.

    RAISES (SettingError): An option is not one of the adapter's.
    """
    other = next((name for name in overrides if not name.startswith("lora.")), None)
    if other is not None:
        raise SettingError(f"there is no option --{other}. See --help; the adapter's are --lora.r, --lora.alpha, …")
    return {name.removeprefix("lora."): value for name, value in overrides.items()}
