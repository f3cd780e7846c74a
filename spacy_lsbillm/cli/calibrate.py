"""`python -m spacy lsbillm calibrate`: scores that are probabilities, thresholds, and a recall that is guaranteed."""

from pathlib import Path
from typing import Annotated

from spacy.cli._util import import_code, setup_gpu
from spacy.training import Corpus
from spacy.util import load_model
from typer import Argument, Option
from wasabi import msg

from ..calibration import CalibrationSettings, Report, calibrate, heads_of
from ..calibration.page import NOT_COVERED, as_html, in_words
from ..calibration.settings import CANDIDATES
from ..errors import SettingError
from ..pages import check_plots
from ..saving import META, save
from . import app
from .debug_pieces import corpus_files
from .device import HELP, device_of
from .output import write_text
from .pipelines import PipelineArgument, any_pipeline_folder

PAGE = "calibration.html"
DevArgument = Annotated[
    Path, Argument(help="Annotated documents that it was not trained with: a .spacy file or a folder of them")
]
OutputOption = Annotated[
    Path, Option("--output", "-o", help="Folder to write the calibrated pipeline to; PIPELINE itself is allowed")
]
PrecisionOption = Annotated[
    float | None, Option("--precision", help="Thresholds by label: leave out spans so that this precision is reached")
]
RecallOption = Annotated[
    float | None, Option("--recall", help="Thresholds by label: leave out as many spans as this recall allows")
]
GuaranteeOption = Annotated[
    float | None, Option("--guarantee", help="Write candidates of which this recall is guaranteed to doc.spans")
]
DeltaOption = Annotated[
    float | None, Option("--delta", help="With --guarantee: with confidence 1 - DELTA. Default: in expectation")
]
PerLabelOption = Annotated[bool, Option("--per-label", help="With --guarantee: for each label on its own")]
KeyOption = Annotated[str, Option("--spans-key", "-k", help="With --guarantee: where candidates go in doc.spans")]
PageOption = Annotated[bool, Option("--page/--no-page", help=f"Write {PAGE} into the folder (needs matplotlib)")]
GpuOption = Annotated[int, Option("--gpu-id", "-g", help=HELP)]
CodeOption = Annotated[Path | None, Option("--code", "-c", help="Python file with functions that the pipeline needs")]


@app.command("calibrate")
def calibrate_cli(
    pipeline: PipelineArgument,
    dev: DevArgument,
    output: OutputOption,
    precision: PrecisionOption = None,
    recall: RecallOption = None,
    guarantee: GuaranteeOption = None,
    delta: DeltaOption = None,
    per_label: PerLabelOption = False,
    spans_key: KeyOption = CANDIDATES,
    page: PageOption = True,
    gpu_id: GpuOption = -1,
    code: CodeOption = None,
) -> None:
    """Make the scores of a trained pipeline's heads of spans probabilities, and write the pipeline anew.

    Of several curves it takes the one that is best on documents held out. Thresholds and guarantees are found on
    request. What it finds is part of the pipeline; calibrated = false of a component switches it off.

    Example: python -m spacy lsbillm calibrate training/model-best corpus/dev.spacy --output calibrated --guarantee 0.9
    """
    try:
        settings = CalibrationSettings(precision, recall, guarantee, delta, per_label, spans_key)
        reports = run(pipeline, dev, output, settings, page=page, gpu_id=gpu_id, code=code)
    except (ValueError, OSError) as error:
        msg.fail("Cannot calibrate the pipeline", str(error), exits=1)
    for name, report in reports.items():
        msg.divider(name)
        print("\n".join(in_words(report)))
    if guarantee is not None:
        print(f"\n{NOT_COVERED}\n")
    msg.good(f"Wrote {output}", f"with {PAGE}" if page else "")


def run(
    pipeline: str,
    dev: Path,
    output: Path,
    settings: CalibrationSettings,
    *,
    page: bool = True,
    gpu_id: int = -1,
    code: Path | None = None,
) -> dict[str, Report]:
    """What the command does.

    RAISES (ValueError): A setting, the pipeline, the documents or the folder cannot be used.
    """
    if page:
        try:
            check_plots()
        except SettingError as error:
            raise SettingError(f"{error}, or give --no-page.") from error
    folder = any_pipeline_folder(pipeline)
    files = corpus_files(dev)
    if output.exists() and not (output / META).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise SettingError(f"--output {output} exists and is no pipeline. Name another folder.")
    device_of(gpu_id)
    import_code(code)
    setup_gpu(gpu_id, silent=True)
    nlp = load_model(folder)
    heads_of(nlp)
    reports = calibrate(nlp, (example for file in files for example in Corpus(file)(nlp)), settings)
    save(nlp, output)
    if page:
        write_text(output / PAGE, as_html(reports, f"Confidence of {pipeline} on {dev}"))
    return reports
