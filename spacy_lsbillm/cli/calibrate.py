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
from ..data.corpora import corpus_files
from ..errors import SettingError
from ..files import write_text
from ..pages import check_plots
from ..saving.pipelines import META, save
from . import app
from .device import device_of
from .options import CodeOption, GpuOption, PipelineArgument
from .pipelines import any_pipeline_folder

PAGE = "calibration.html"
DevArgument = Annotated[
    Path, Argument(help="Annotated documents that the pipeline was not trained on: a .spacy file or a folder of them")
]
OutputOption = Annotated[
    Path, Option("--output", "-o", help="Folder for the calibrated pipeline; may be PIPELINE itself")
]
PrecisionOption = Annotated[
    float | None, Option("--precision", help="Set a threshold per label that reaches this precision on DEV")
]
RecallOption = Annotated[
    float | None, Option("--recall", help="Set the highest threshold per label that keeps this recall on DEV")
]
GuaranteeOption = Annotated[
    float | None, Option("--guarantee", help="Also write candidate spans to doc.spans, with this recall guaranteed")
]
DeltaOption = Annotated[
    float | None,
    Option("--delta", help="With --guarantee: it holds with confidence 1 - DELTA. Default: in expectation"),
]
PerLabelOption = Annotated[
    bool, Option("--per-label", help="With --guarantee: guarantee the recall of each label separately")
]
ComponentsOption = Annotated[
    list[str] | None,
    Option("--component", help="Calibrate only this head; may be given several times. Default: all heads"),
]
KeyOption = Annotated[str, Option("--spans-key", "-k", help="With --guarantee: key of the candidates in doc.spans")]
PageOption = Annotated[bool, Option("--page/--no-page", help=f"Also write {PAGE} to the folder (needs matplotlib)")]


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
    component: ComponentsOption = None,
    page: PageOption = True,
    gpu_id: GpuOption = -1,
    code: CodeOption = None,
) -> None:
    """Calibrate the span heads and classifiers of a trained pipeline, so that their scores are probabilities.

    Several calibration curves are fitted, and the best one on held-out documents is used. Thresholds and guarantees
    are computed on request. The result is stored in the pipeline; set calibrated = false in a component to disable it.

    Example: python -m spacy lsbillm calibrate training/model-best corpus/dev.spacy --output calibrated --guarantee 0.9
    """
    try:
        settings = CalibrationSettings(
            precision, recall, guarantee, delta, per_label, spans_key, tuple(component or ())
        )
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
    heads_of(nlp, settings.components)
    reports = calibrate(nlp, (example for file in files for example in Corpus(file)(nlp)), settings)
    # Drawn first, so that nothing is written if it cannot be drawn.
    content = as_html(reports, f"Confidence of {pipeline} on {dev}") if page else None
    save(nlp, output)
    if content is not None:
        write_text(output / PAGE, content)
    return reports
