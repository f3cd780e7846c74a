"""`python -m spacy lsbillm predict-mask`: a ranking of masks without the full search."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spacy.cli._util import parse_config_overrides, setup_gpu
from thinc.api import Config
from typer import Argument, Context, Option
from wasabi import msg

from ..errors import SettingError
from . import app
from .options import (
    ComponentOption,
    ConfigArgument,
    GpuOption,
    GroupsOption,
    MasksOption,
    SeedsOption,
    StorageOption,
    TestOption,
)
from .searches import check_extra, load_overridden, numbers, show

if TYPE_CHECKING:
    from ..search.prediction import Prediction
    from ..search.study import Study
    from ..search.trials import Subject


class PredictorName(StrEnum):
    """What typer offers for --predictor."""

    one_shot = "one-shot"
    probe = "probe"
    first_steps = "first-steps"
    first_loss = "first-loss"


OutputArgument = Annotated[Path, Argument(help="Folder for the results; finished work in it is not repeated")]
PredictorOption = Annotated[
    PredictorName,
    Option(
        "--predictor",
        "-p",
        help="one-shot: one training per seed in which the mask changes at every step, then a score per mask. probe: a "
        "linear model on the frozen base's vectors under each mask. first-steps: a short training per mask. "
        "first-loss: the same, ranked by training loss",
    ),
]
ShareOption = Annotated[
    float, Option("--share", help="Fraction of the training steps to run, for first-steps and first-loss")
]
ThenOption = Annotated[int, Option("--then", help="Number of top-ranked masks to train in full, as search does")]


@app.command("predict-mask", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def predict_mask_cli(
    ctx: Context,
    config_path: ConfigArgument,
    output: OutputArgument,
    predictor: PredictorOption = PredictorName.one_shot,
    groups: GroupsOption = "4",
    masks: MasksOption = None,
    seeds: SeedsOption = "0,1,2",
    share: ShareOption = 0.1,
    then: ThenOption = 0,
    test: TestOption = None,
    storage: StorageOption = None,
    component: ComponentOption = None,
    gpu_id: GpuOption = -1,
) -> None:
    """Rank masks for a task without training each of them in full.

    This costs at most a tenth of search --strategy grid, and none of the predictors is reliable: on three tasks the
    rank correlation with the grid was between -0.4 and 0.9. Only masks are ranked; repeat, depth and unmask_warmup stay
    as in the config. With --then 3 the top three masks are trained in full and the best on dev is chosen. Run the same
    command again to resume.

    The output folder receives ranking.md, ranking.json and predicted.cfg, the config with the top mask; with --then
    also the files that search writes: table.md, results.json, report.html and best.cfg.

    Example: python -m spacy lsbillm predict-mask configs/sequence_labeler.cfg search --then 3
    """
    try:
        folder_of_prediction(
            load_overridden(config_path, parse_config_overrides(ctx.args)),
            config_path,
            output,
            predictor=predictor.value,
            groups=numbers("--groups", groups, least=1),
            masks=masks.split() if masks else None,
            seeds=numbers("--seeds", seeds),
            share=share,
            then=then,
            test=test,
            storage=storage,
            component=component,
            gpu_id=gpu_id,
        )
    except (ValueError, OSError) as error:
        msg.fail("Cannot predict", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped. The same command goes on from here.", exits=130)


def folder_of_prediction(
    config: Config,
    config_path: Path,
    output: Path,
    *,
    predictor: str,
    groups: list[int],
    masks: list[str] | None,
    seeds: list[int],
    share: float,
    then: int,
    test: Path | None,
    storage: str | None,
    component: str | None,
    gpu_id: int,
) -> None:
    """See `predict_mask_cli`. All that can be checked is checked before the first training.

    RAISES (ValueError): Something does not fit.
    """
    if test is not None and not then:
        raise SettingError("--test needs trained models: say with --then how many masks to train.")
    check_extra()
    from ..search.candidates import ways_of
    from ..search.first_steps import short_length
    from ..search.folder import about_run, checked_subject, masks_of, opened, searched
    from ..search.probe import task_of
    from ..search.report import write_ranking
    from ..search.shared import check_shared
    from ..search.strategies import Grid

    subject = checked_subject(config, component, test)
    wanted, _ = ways_of(masks or masks_of(groups, subject.n_layers), {}, subject)
    if not 0 <= then <= len(wanted):
        raise SettingError(f"--then {then} is not allowed: there are {len(wanted)} masks. Use 0 to {len(wanted)}.")
    if predictor == PredictorName.one_shot:
        check_shared(subject, wanted)
    elif predictor == PredictorName.probe:
        task_of(subject)
    else:
        short_length(subject.steps, share)
    setup_gpu(gpu_id)
    subject.check_scores(test)
    study = opened(output, storage, subject)
    prediction = predicted(predictor, subject, wanted, seeds, study, output, share, gpu_id)
    about = about_run(config_path, predictor, seeds, test)
    paths = write_ranking(output, prediction, subject, len(seeds), about)
    print("\n" + paths["ranking"].read_text(encoding="utf8"))
    if not then:
        msg.good(f"{prediction.ranking[0]} is thought to be best. Train with {paths['config']}, or see with --then 3.")
        return
    first = [mask for mask in wanted if mask in prediction.ranking[:then]]
    found = searched(
        subject,
        Grid(first, seeds, subject.steps),
        study,
        output,
        about,
        ways=first,
        seeds=seeds,
        test=test,
        use_gpu=gpu_id,
        spent=prediction.steps,
        considered=len(wanted),
    )
    show(found)


def predicted(
    predictor: str,
    subject: "Subject",
    masks: list[str],
    seeds: list[int],
    study: "Study",
    output: Path,
    share: float,
    gpu_id: int,
) -> "Prediction":
    """Ask a predictor."""
    from ..search.first_steps import first_steps
    from ..search.one_shot import one_shot
    from ..search.probe import probe

    if predictor == PredictorName.one_shot:
        return one_shot(subject, masks, seeds, study, output, use_gpu=gpu_id)
    if predictor == PredictorName.probe:
        return probe(subject, masks, output, use_gpu=gpu_id)
    by_loss = predictor == PredictorName.first_loss
    return first_steps(subject, masks, seeds, study, output, share=share, use_gpu=gpu_id, by_loss=by_loss)
