"""`python -m spacy lsbillm search-mask`: which layers to unmask for a task."""

import platform
from enum import StrEnum
from importlib.metadata import version
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

if TYPE_CHECKING:
    from ..search.strategies import Strategy
    from ..search.study import Study
    from ..search.trials import Subject

EXTRA = "python -m pip install 'spacy-lsbillm[search]'"


class StrategyName(StrEnum):
    """What typer offers for --strategy."""

    grid = "grid"
    halving = "halving"
    greedy = "greedy"


ConfigArgument = Annotated[Path, Argument(help="A training config with a billm_transformer")]
OutputArgument = Annotated[Path, Argument(help="Folder for the results; a search that lies there goes on")]
StrategyOption = Annotated[
    StrategyName,
    Option(
        "--strategy",
        "-s",
        help="grid: every mask in full. halving: one training that all share, the best with trainings of their own. "
        "greedy: group by group from the output, each kept if it helps",
    ),
]
GroupsOption = Annotated[
    str,
    Option("--groups", help="Groups of layers of equal size; several numbers with commas between: the masks of all"),
]
MasksOption = Annotated[
    str | None,
    Option(
        "--masks",
        "-m",
        help="These masks alone, with spaces between them, such as 'none from:4 all'; "
        "search-mask trains each in full, whatever the strategy",
    ),
]
SeedsOption = Annotated[str, Option("--seeds", help="Seeds, with commas between; every mask is trained with each")]
TestOption = Annotated[
    Path | None, Option("--test", "-t", help="Test corpus, for the chosen mask, none and all, once, in the end")
]
StorageOption = Annotated[
    str | None, Option("--storage", help="Database URL, for several machines; without it, OUTPUT/search.db")
]
ComponentOption = Annotated[str | None, Option("--component", "-c", help="The billm_transformer, if there are several")]
GpuOption = Annotated[int, Option("--gpu-id", "-g", help=HELP)]


@app.command("search-mask", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def search_mask_cli(
    ctx: Context,
    config_path: ConfigArgument,
    output: OutputArgument,
    strategy: StrategyOption = StrategyName.halving,
    groups: GroupsOption = "4",
    masks: MasksOption = None,
    seeds: SeedsOption = "0,1,2",
    test: TestOption = None,
    storage: StorageOption = None,
    component: ComponentOption = None,
    gpu_id: GpuOption = -1,
) -> None:
    """Find the layers to unmask for a task: train the config under different masks and compare their scores on dev.

    The best set of layers depends on the task (Dukić and Šnajder, "Looking Right is Sometimes Right", 2024). The score
    is the config's own, training.score_weights. A search that was stopped goes on with the same command, and several
    processes may work on it at once: no training is done twice. Settings of the config can be given as options, as
    with spacy train.

    The output folder gets table.md, results.json, report.html to look at, and best.cfg to train with. For a ranking at
    a small part of the price see predict-mask.

    Example: python -m spacy lsbillm search-mask configs/sequence_labeler.cfg search --test corpus/test.spacy
    """
    try:
        folder_of_search(
            load_overridden(config_path, parse_config_overrides(ctx.args)),
            config_path,
            output,
            strategy=strategy.value,
            groups=numbers("--groups", groups, least=1),
            masks=masks.split() if masks else None,
            seeds=numbers("--seeds", seeds),
            test=test,
            storage=storage,
            component=component,
            gpu_id=gpu_id,
        )
    except (ValueError, OSError) as error:
        msg.fail("Cannot search", str(error), exits=1)
    except KeyboardInterrupt:
        msg.warn("Stopped. The same command goes on from here.", exits=130)


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
    seeds: list[int],
    test: Path | None,
    storage: str | None,
    component: str | None,
    gpu_id: int,
) -> None:
    """See `search_mask_cli`. All that can be checked is checked before the first training.

    RAISES (ValueError): Something does not fit.
    """
    subject, wanted = prepared(config, component, groups, masks, test)
    from ..search.shared import check_shared
    from ..search.strategies import Greedy, Grid, Halving, Strategy

    plan: Strategy
    if masks is not None or strategy == "grid":
        plan = Grid(wanted, seeds, subject.steps)
    elif strategy == "halving":
        check_shared(subject, wanted)
        plan = Halving(wanted, seeds, subject.steps)
    else:
        if len(groups) != 1:
            raise SettingError(f"--strategy greedy takes one number of groups, not {groups}.")
        plan = Greedy(groups[0], seeds, subject.steps)
    setup_gpu(gpu_id)
    subject.check_scores(test)
    study = opened(output, storage, subject)
    msg.info(
        f"{len(wanted)} masks of {subject.n_layers} layers, seeds {', '.join(map(str, seeds))}, "
        f"at most {plan.trials} trainings of up to {subject.steps} steps"
    )
    about = about_run(config_path, strategy if masks is None else "list", seeds, test)
    searched(subject, plan, study, output, about, masks=wanted, seeds=seeds, test=test, use_gpu=gpu_id)


def prepared(
    config: Config, component: str | None, groups: list[int], masks: list[str] | None, test: Path | None
) -> tuple["Subject", list[str]]:
    """What a search is about, and its masks.

    RAISES (ValueError): Something is not installed or does not fit.
    """
    try:
        from ..search.page import check_plots
        from ..search.trials import Subject, check_dev_corpus
    except ImportError as error:
        raise SettingError(f"a search needs Optuna and SciPy ({error}): {EXTRA}") from error
    from ..search.space import all_masks, check_masks

    check_plots()
    if test is not None and not test.exists():
        raise SettingError(f"there is no test corpus {str(test)!r}.")
    check_dev_corpus(config)
    subject = Subject.of(config, component)
    wanted = masks or _distinct([mask for number in groups for mask in all_masks(number)], subject.n_layers)
    check_masks(wanted, subject.n_layers)
    return subject, wanted


def opened(output: Path, storage: str | None, subject: "Subject") -> "Study":
    """The storage of a search. Models and rankings lie in the output folder, wherever the storage is.

    RAISES (StorageError): One of them belongs to another search, or cannot be used.
    """
    from ..search.study import Study, claim_folder

    output.mkdir(parents=True, exist_ok=True)
    identity = subject.identity
    study = Study(storage or f"sqlite:///{output.resolve() / 'search.db'}", identity)
    claim_folder(output, identity)
    return study


def about_run(config_path: Path, strategy: str, seeds: list[int], test: Path | None) -> dict[str, Any]:
    """What a result file says beside the results."""
    return {
        "config": str(config_path),
        "strategy": strategy,
        "seeds": seeds,
        "test_corpus": str(test) if test else None,
        "versions": {name: version(name) for name in ("spacy-lsbillm", "spacy", "torch", "transformers", "peft")},
        "python": platform.python_version(),
    }


def searched(
    subject: "Subject", plan: "Strategy", study: "Study", output: Path, about: dict[str, Any], **settings: Any
) -> None:
    """Search, write the report and show the table.

    settings: Of `search.run.search`.
    """
    from ..search.report import write_report
    from ..search.run import search

    outcome = search(subject, plan, study, output, **settings)
    paths = write_report(output, outcome, subject, about | {"base": subject.identity["base"]})
    print("\n" + paths["table"].read_text(encoding="utf8"))
    msg.good(f"{outcome.chosen} is best on dev. Look at {paths['report']}; train with {paths['config']}.")


def _distinct(masks: list[str], n_layers: int) -> list[str]:
    """Groups of several sizes have masks in common."""
    from ..backbone import MaskPlan

    by_layers = {MaskPlan.parse(mask, n_layers).unmasked: mask for mask in reversed(masks)}
    return [mask for mask in masks if by_layers[MaskPlan.parse(mask, n_layers).unmasked] == mask]


def numbers(option: str, text: str, least: int = 0) -> list[int]:
    """RAISES (SettingError): The text is no list of different whole numbers with commas between, none below `least`."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingError(f"{option} {text!r}: give whole numbers with commas between them.") from error
    if len(set(found)) < len(found) or min(found) < least:
        raise SettingError(f"{option} {text!r}: give each number once, none below {least}.")
    return found
