"""`python -m spacy lsbillm predict-mask`: a ranking of masks without the full search."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from spacy.cli._util import parse_config_overrides, setup_gpu
from typer import Argument, Context, Option
from wasabi import msg

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
        check_extra()
        from ..search.folder import run_details
        from ..search.ranking import Ranking, RankingSettings

        config = load_overridden(config_path, parse_config_overrides(ctx.args))
        chosen_masks, layer_groups = masks.split() if masks else None, numbers("--groups", groups, least=1)
        settings = RankingSettings(predictor.value, layer_groups, chosen_masks, numbers("--seeds", seeds), share, then)
        ranking = Ranking(config, component, settings, test)
        setup_gpu(gpu_id)
        ranked = ranking.run(output, storage, run_details(config_path, predictor.value, settings.seeds, test), gpu_id)
        print("\n" + ranked.paths["ranking"].read_text(encoding="utf8"))
        if ranked.search is not None:
            show(ranked.search)
        else:
            best, best_config = ranked.prediction.ranking[0], ranked.paths["config"]
            msg.good(f"{best} is predicted to be best. Train with {best_config}, or check with --then 3.")
    except (ValueError, OSError) as error:
        msg.fail("Cannot predict", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped. Run the same command again to continue.", exits=130)
