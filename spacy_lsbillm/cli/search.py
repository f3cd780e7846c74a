"""`python -m spacy lsbillm search`, or `search-mask`: find the best way to see right for a task."""

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from spacy.cli._util import parse_config_overrides, setup_gpu
from thinc.api import Config
from typer import Argument, Context, Option
from wasabi import msg

from ..errors import SettingError
from ..search.strategies import STRATEGIES
from . import app
from .options import (
    ComponentOption,
    ConfigArgument,
    GpuOption,
    GroupsOption,
    MasksOption,
    OptionalAddress,
    RayOption,
    SeedsOption,
    StorageOption,
    TestOption,
)
from .searches import check_extra, load_overridden, numbers, show

# What typer offers for --strategy. (mypy knows only the members of enums that are written out.)
StrategyName = StrEnum("StrategyName", {name: name for name in STRATEGIES})  # type: ignore[misc]
HALVING = StrategyName("halving")

OutputArgument = Annotated[Path, Argument(help="Folder for the results; a search in it is resumed")]
StrategyOption = Annotated[
    StrategyName,
    Option(
        "--strategy",
        "-s",
        help="grid: train everything in full. halving: shared trainings of all masks, then the best ones in full. "
        "greedy: unmask group by group from the output side, keeping what helps",
    ),
]
RepeatOption = Annotated[
    str | None, Option("--repeat", help="Values of `repeat` to try with every mask, such as 0,1,2")
]
DepthOption = Annotated[str | None, Option("--depth", help="Values of `depth` to try, such as 4,8,all")]
WarmupOption = Annotated[
    str | None, Option("--unmask-warmup", help="Values of `unmask_warmup` to try, in updates, such as 0,100")
]
BudgetOption = Annotated[
    float | None,
    Option(
        "--budget",
        "-b",
        help="Maximum cost of the search, in trainings of the causal model. No training is started that would exceed "
        "it",
    ),
]
WorkersOption = Annotated[
    int | None,
    Option(
        "--workers", help="With --ray: number of parallel trainings. Default: one per core, or per GPU, of the cluster"
    ),
]
# Settings of the config are options, too.
ANY_OPTION = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("search", cls=OptionalAddress, context_settings=ANY_OPTION)
def search_cli(
    ctx: Context,
    config_path: ConfigArgument,
    output: OutputArgument,
    strategy: StrategyOption = HALVING,
    groups: GroupsOption = "4",
    masks: MasksOption = None,
    repeat: RepeatOption = None,
    depth: DepthOption = None,
    unmask_warmup: WarmupOption = None,
    seeds: SeedsOption = "0,1,2",
    budget: BudgetOption = None,
    test: TestOption = None,
    storage: StorageOption = None,
    component: ComponentOption = None,
    gpu_id: GpuOption = -1,
    ray: RayOption = None,
    workers: WorkersOption = None,
) -> None:
    """Find out which layers to unmask for a task.

    Trains a config under different masks and, optionally, values of `repeat`, `depth` and `unmask_warmup`, and compares
    the scores on dev.

    The best choice depends on the task (Dukić and Šnajder, "Looking Right is Sometimes Right", 2024). The score is the
    one in training.score_weights. Costs are computed before training, and the report recommends a setting for the best
    score, for half its cost, and for the cost of the causal model. Run the same command again to resume; several
    processes may work on one search, and no training is done twice. With --ray, trainings run on a Ray cluster.
    Override settings of the config as with spacy train, such as --training.max_steps 500.

    The output folder receives table.md, results.json, report.html and best.cfg, the config to train with. For a cheaper
    ranking of masks see predict-mask. The command is also available as search-mask.

    Example: python -m spacy lsbillm search configs/sequence_labeler.cfg search --repeat 0,1 --test corpus/test.spacy
    """
    varied = {"repeat": repeat, "depth": depth, "unmask_warmup": unmask_warmup}
    try:
        run_search(
            load_overridden(config_path, parse_config_overrides(ctx.args)),
            config_path,
            output,
            strategy=strategy.value,
            groups=numbers("--groups", groups, least=1),
            masks=masks.split() if masks else None,
            varied={name: values for name, values in varied.items() if values is not None},
            seeds=numbers("--seeds", seeds),
            budget=budget,
            test=test,
            storage=storage,
            component=component,
            gpu_id=gpu_id,
            ray=ray,
            workers=workers,
        )
    except (ValueError, OSError) as error:
        msg.fail("Cannot search", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped. Run the same command again to continue.", exits=130)


# The command's name from when it searched only masks.
app.command("search-mask", cls=OptionalAddress, context_settings=ANY_OPTION)(search_cli)


def run_search(
    config: Config,
    config_path: Path,
    output: Path,
    *,
    strategy: str,
    groups: list[int],
    masks: list[str] | None,
    varied: dict[str, str],
    seeds: list[int],
    budget: float | None,
    test: Path | None,
    storage: str | None,
    component: str | None,
    gpu_id: int,
    ray: str | None,
    workers: int | None,
) -> None:
    """Run the search of `search_cli`. Everything that can be checked is checked before the first training.

    RAISES (ValueError): Something does not fit.
    """
    check_extra()
    from ..search.folder import Search, SearchSettings, run_details
    from ..search.on_ray import RayCluster

    if workers is not None and (ray is None or workers < 1):
        raise SettingError(
            f"--workers {workers} is not allowed: it goes with --ray, and is at least 1. Without --ray, start the "
            f"command several times with the same output folder."
        )
    if ray is None:
        setup_gpu(gpu_id)
    with RayCluster(ray, workers, gpu_id >= 0) if ray is not None else contextlib.nullcontext() as cluster:
        search = Search(config, component, SearchSettings(strategy, groups, masks, varied, seeds), test, budget)
        experiment = search.experiment
        for way, why in search.left_out.items():
            msg.info(f"{way} is not tried: {why}")
        msg.info(
            f"{len(search.ways)} {'ways' if varied else 'masks'} of {experiment.n_layers} layers, seeds "
            f"{', '.join(map(str, seeds))}, at most {search.strategy.n_trainings} trainings of up to "
            f"{experiment.steps} steps"
        )
        about = run_details(config_path, strategy if masks is None else "list", seeds, test)
        remote = cluster.trainer_for(search.experiment, output) if cluster else None
        show(search.run(output, storage, about, gpu_id, remote))
