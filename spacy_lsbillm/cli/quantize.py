"""`python -m spacy lsbillm quantize`: store a pipeline with weights in eight bits, if it loses little."""

from pathlib import Path
from typing import Annotated

from spacy.cli._util import import_code
from spacy.util import load_config
from typer import Argument, Exit, Option
from wasabi import msg, table

from ..backbone import MaskPlan, read_record
from ..data.corpora import corpus_files
from ..errors import SettingError
from ..pipeline.config_blocks import billm_blocks
from ..quantization import Attempt, Quantized, quantize
from ..saving.pipelines import META
from . import app
from .options import CodeOption, NewPipelineArgument, PipelineArgument
from .pipelines import pipeline_folder

# How many of the layers with the largest errors are listed.
SHOWN = 5
MEGABYTE = 1e6
DevArgument = Annotated[
    Path, Argument(help="Annotated documents that were not used in training: a .spacy file or a folder of them")
]
LossOption = Annotated[float, Option("--max-loss", help="Maximum loss of any of the pipeline's scores, in points")]
KeepOption = Annotated[
    str | None, Option("--keep", help="Layers to keep in float32, such as 0-1,11; layer 0 is next to the input")
]


@app.command("quantize")
def quantize_cli(
    pipeline: PipelineArgument,
    dev: DevArgument,
    output: NewPipelineArgument,
    max_loss: LossOption = 0.5,
    keep: KeepOption = None,
    code: CodeOption = None,
) -> None:
    """Fold the adapter of a trained pipeline into weights in eight bits, for prediction on a CPU.

    The command runs the pipeline in float32 and in eight bits over the development set and prints the loss. OUTPUT is
    written if the loss is at most --max-loss; otherwise the command lists the layers with the largest errors, and what
    keeping them in float32 costs. The weights take a quarter of the memory. Whether prediction is faster depends on the
    CPU, and is measured as well.

    Example: python -m spacy lsbillm quantize training/model-best corpus/dev.spacy quantized --keep 0,11
    """
    try:
        folder = pipeline_folder(pipeline)
        files = corpus_files(dev)
        if output.exists() and not (output / META).is_file() and not (output.is_dir() and not any(output.iterdir())):
            raise SettingError(f"OUTPUT {output} exists and is no pipeline. Name another folder.")
        import_code(code)
        kept = _layers(keep, folder)
        result = quantize(folder, files, output, max_loss=max_loss, kept=kept, tell=_print)
    except (ValueError, OSError) as error:
        msg.fail("Cannot quantize the pipeline", str(error), exits=1)
    if result.written:
        msg.good(f"Wrote {output}", f"{result.first.comparison.loss:.2f} points lost, --max-loss is {max_loss:g}")
        return
    _blame(result, max_loss)
    raise Exit(1)


def _layers(keep: str | None, folder: Path) -> list[int]:
    """The layers that --keep names.

    RAISES (MaskError): The value cannot be read, or names layers that the base does not have.
    """
    if keep is None:
        return []
    layers = [read_record(folder / name)["base"]["layers"] for name in billm_blocks(load_config(folder / "config.cfg"))]
    plan = MaskPlan.parse(f"layers:{keep}", min(layers), "--keep")
    return [i for i, chosen in enumerate(plan.unmasked) if chosen]


def _print(attempt: Attempt) -> None:
    comparison = attempt.comparison
    kept = f", layers {_listed(attempt.kept)} in float32" if attempt.kept else ""
    msg.divider(f"float32 and int8{kept}")
    rows: list[tuple[str, ...]] = [
        (name, f"{one * 100:.2f}", f"{other * 100:.2f}") for name, (one, other) in comparison.scores.items()
    ]
    rows.append(("words per second", *(f"{speed:,.0f}" for speed in comparison.words_per_second)))
    rows.append(("weights in memory, MB", *(f"{size / MEGABYTE:,.1f}" for size in comparison.weight_bytes)))
    print(table(rows, header=("", "float32", "int8"), divider=True, aligns=("l", "r", "r")))
    if comparison.spans is not None:
        print(f"The same spans: {comparison.spans:.2%}")
    if comparison.classes is not None:
        print(f"The same best class: {comparison.classes:.2%}")
    print(f"Speed: {comparison.speed:.2f} times float32")


def _blame(result: Quantized, max_loss: float) -> None:
    msg.fail(
        f"Nothing was written: {result.first.comparison.loss:.2f} points are lost, --max-loss is {max_loss:g}",
        "The layers whose products eight bits change most, and what keeping one in float32 costs:",
    )
    rows = [
        (str(error.layer), f"{error.error:.2%}", error.module, f"{error.nbytes / MEGABYTE:.1f}")
        for error in result.errors[:SHOWN]
    ]
    print(table(rows, header=("layer", "error", "most in", "MB"), divider=True))
    for attempt in result.others:
        more = attempt.comparison.weight_bytes[1] - result.first.comparison.weight_bytes[1]
        print(
            f"--keep {_listed(attempt.kept)}: {attempt.comparison.loss:.2f} points lost, {more / MEGABYTE:.1f} MB more"
        )
    if not result.others or result.others[-1].comparison.loss > max_loss:
        print("None of these stays within --max-loss: leave the pipeline in float32, or raise --max-loss.")


def _listed(layers: tuple[int, ...]) -> str:
    return ",".join(map(str, layers))
