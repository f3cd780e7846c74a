"""`python -m spacy lsbillm search`, or `search-mask`: which way to see right for a task."""

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from spacy.cli._util import parse_config_overrides, setup_gpu
from spacy.util import load_config
from thinc.api import Config
from typer import Argument, Context, Option
from wasabi import msg

from ..errors import SettingError
from . import app
from .device import HELP
from .ray_address import OptionalAddress, RayOption

if TYPE_CHECKING:
    from ..search.folder import Reported

EXTRA = "python -m pip install 'spacy-lsbillm[search]'"


class StrategyName(StrEnum):
    """What typer offers for --strategy."""

    grid = "grid"
    halving = "halving"
    greedy = "greedy"


ConfigArgument = Annotated[Path, Argument(help="Training config with a billm_transformer")]
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
GroupsOption = Annotated[
    str,
    Option("--groups", help="Number of equal layer groups; a comma-separated list searches the union of their masks"),
]
MasksOption = Annotated[
    str | None,
    Option(
        "--masks",
        "-m",
        help="Only these masks, separated by spaces, such as 'none from:4 all'; "
        "search trains each in full, whatever the strategy",
    ),
]
SeedsOption = Annotated[str, Option("--seeds", help="Comma-separated seeds; everything is trained with each of them")]
TestOption = Annotated[
    Path | None,
    Option(
        "--test", "-t", help="Test corpus. Scored once, after the search, for the chosen setting and both baselines"
    ),
]
StorageOption = Annotated[
    str | None, Option("--storage", help="Database URL, to share a search between machines. Default: OUTPUT/search.db")
]
ComponentOption = Annotated[
    str | None, Option("--component", "-c", help="Name of the billm_transformer, if the config has several")
]
GpuOption = Annotated[int, Option("--gpu-id", "-g", help=HELP)]
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
    strategy: StrategyOption = StrategyName.halving,
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
    """Find out which layers to unmask for a task: train a config under different masks and, optionally, values of
    `repeat`, `depth` and `unmask_warmup`, and compare the scores on dev.

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
        folder_of_search(
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
        msg.warn("Stopped. The same command goes on from here.", exits=130)


# The name of the command when it searched masks alone.
app.command("search-mask", cls=OptionalAddress, context_settings=ANY_OPTION)(search_cli)


def load_overridden(path: Path, overrides: dict[str, Any]) -> Config:
    """RAISES (SettingError): There is no such file."""
    if not path.is_file():
        raise SettingError(f"there is no config {str(path)!r}.")
    return load_config(path, overrides=overrides, interpolate=False)


def folder_of_search(
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
    """See `search_cli`. All that can be checked is checked before the first training.

    RAISES (ValueError): Something does not fit.
    """
    check_extra()
    from ..search.folder import Search, Wanted, about_run
    from ..search.on_ray import RayTrials

    if workers is not None and (ray is None or workers < 1):
        raise SettingError(
            f"--workers {workers} is not allowed: it goes with --ray, and is at least 1. Without --ray, start the "
            f"command several times with the same output folder."
        )
    if ray is None:
        setup_gpu(gpu_id)
    with RayTrials(ray, workers, gpu_id >= 0) if ray is not None else contextlib.nullcontext() as cluster:
        search = Search(config, component, Wanted(strategy, groups, masks, varied, seeds), test, budget)
        subject = search.subject
        for way, why in search.left_out.items():
            msg.info(f"{way} is not tried: {why}")
        msg.info(
            f"{len(search.ways)} {'ways' if varied else 'masks'} of {subject.n_layers} layers, seeds "
            f"{', '.join(map(str, seeds))}, at most {search.plan.trials} trainings of up to {subject.steps} steps"
        )
        about = about_run(config_path, strategy if masks is None else "list", seeds, test)
        elsewhere = cluster.of(search.subject, output) if cluster else None
        show(search.run(output, storage, about, gpu_id, elsewhere))


def check_extra() -> None:
    """RAISES (SettingError): What searches need is not installed."""
    try:
        import optuna  # noqa: F401
        import scipy  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise SettingError(f"a search needs Optuna and SciPy ({error}): {EXTRA}") from error


def show(found: "Reported") -> None:
    """Print the table of a finished search."""
    print("\n" + found.paths["table"].read_text(encoding="utf8"))
    chosen, report, config = found.outcome.chosen, found.paths["report"], found.paths["config"]
    msg.good(f"{chosen} is best on dev. Look at {report}; train with {config}.")


def numbers(option: str, text: str, least: int = 0) -> list[int]:
    """RAISES (SettingError): The text is no list of different whole numbers with commas between, none below `least`."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingError(f"{option} {text!r}: give whole numbers with commas between them.") from error
    if len(set(found)) < len(found) or min(found) < least:
        raise SettingError(f"{option} {text!r}: give each number once, none below {least}.")
    return found
