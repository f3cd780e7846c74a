"""The scores with fewer layers, and how much faster they are.

    python -m benchmarks.depth run --data DATA
    python -m benchmarks.depth time --data DATA
    python -m benchmarks.depth report

Each depth of a base is trained separately, with every layer unmasked, on at most 1,500 sentences and with the settings
of `benchmarks.tasks`. Without --base it is the embedded base. An interrupted run continues with the same command.
`time` measures the words per second of pipelines of all depths, in turn, on the test sets, in processor time.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.vocab import Vocab

from .record import ROOT, circumstances
from .store import tables
from .tasks.arguments import add_base_argument, add_device_argument, add_run_arguments
from .tasks.cell import Run
from .tasks.models import Budget, Compared, depths_of, make_config
from .tasks.report import cell
from .tasks.sets import SETS

RESULTS = ROOT / "benchmarks" / "results" / "depth"
# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
# For the command `time`.
ROUNDS = 5
Found = dict[tuple[str, int], dict[str, list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.depth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shown = argparse.ArgumentDefaultsHelpFormatter
    run = commands.add_parser("run", help="train and score the depths that have no result yet", formatter_class=shown)
    timed = commands.add_parser("time", help="measure words per second", formatter_class=shown)
    for command in (run, timed):
        add_run_arguments(command, ["snips_slots", "restaurant8k_slots"], examples=1500)
        add_base_argument(command)
        command.add_argument("--depths", nargs="+", type=int, metavar="LAYERS", help="rows of the table; default: all")
    add_device_argument(run)
    for command in (run, timed, commands.add_parser("report", help="print the table and write it, with a plot")):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of result files, or one .jsonl file")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    data, work, results = (path.resolve() for path in (args.data, args.work, args.results))
    os.chdir(ROOT)
    limits = {"train": args.examples, "dev": args.dev, "test": args.test}
    models = depths_of(args.base, args.depths)
    table = Run(data, work, results, limits, Budget(epochs=args.epochs), models=models, device=vars(args).get("device"))
    if args.command == "run":
        table.cells([(name, depth, seed) for seed, name, depth in product(args.seeds, args.sets, models)])
        return
    for name in args.sets:
        found = time_depths(name, models, table.prepared(name))
        table.store.write(f"{name}.speed", {"set": name, **found, **circumstances()})


def time_depths(name: str, models: Mapping[str, Compared], paths: dict[str, Path]) -> dict[str, Any]:
    """Words per second of processor time in untrained pipelines, measured in rounds over all depths."""
    pipelines, kind = {}, SETS[name].kind
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    for depth, model in models.items():
        config = make_config(model, kind, corpora, 1, Budget(), seed=0)
        # A trained pipeline folds its adapter in if it is the only one over its base; these pipelines share theirs.
        config["components"]["transformer"]["model"]["fold_adapter"] = "always"
        pipelines[depth] = init_nlp(config)
    texts = [doc.text for doc in DocBin().from_disk(paths["test"]).get_docs(Vocab())]
    words = sum(len(text.split()) for text in texts)
    rounds: dict[str, list[float]] = {depth: [] for depth in models}
    for number in range(ROUNDS + 1):
        for depth, nlp in pipelines.items():
            docs = [nlp.make_doc(text) for text in texts]
            begun = time.process_time()
            for _ in nlp.pipe(docs):
                pass
            # The first round, which loads lazily and folds, does not count.
            if number:
                rounds[depth].append(words / (time.process_time() - begun))
    return {"words": words, "words_per_second": rounds}


def report(results: Path) -> None:
    """Print and write a table and a plot for each size of the training sets."""
    for name, store in tables(results, "run").items():
        found: Found = defaultdict(lambda: defaultdict(list))
        for _, result in store.results():
            for depth, rounds in result.get("words_per_second", {}).items():
                found[result["set"], number_of(depth)]["speed"] = rounds
            if "model" in result:
                scores = found[result["set"], number_of(result["model"])]
                scores["dev"].append(100 * result["dev"])
                scores["test"].append(100 * result["test"])
        text = table(found)
        store.beside("table.md").write_text(text, encoding="utf8")
        print(f"{name}\n\n{text}")
        plot(found, store.beside("plot.svg"))


def number_of(depth: str) -> int:
    """The number of layers of a row, from its name in result files."""
    return int(depth.removeprefix("depth"))


def table(found: Found) -> str:
    """The table as Markdown: a row per depth, and per data set the scores on dev and test and the words per second.

    Scores are means and standard deviations, speeds are medians.
    """
    sets = [name for name in SETS if any(key[0] == name for key in found)]
    columns = [f"{name}: {what}" for name in sets for what in ("dev", "test", "words per second")]
    lines = ["| layers | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for depth in sorted({depth for _, depth in found}):
        cells = []
        for name in sets:
            scores = found.get((name, depth), {})
            speed = scores.get("speed", [])
            cells += [
                cell(scores.get("dev", [])),
                cell(scores.get("test", [])),
                f"{median(speed):,.0f}" if speed else "",
            ]
        lines.append(f"| {depth} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(found: Found, path: Path) -> None:
    """Plot the score over words per second: a dot per depth, a line per data set."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    sets = [name for name in SETS if any(key[0] == name for key in found)]
    for name, colour, marker in zip(sets, COLOURS, "os^D", strict=False):
        points = [
            (median(scores["speed"]), mean(scores["test"]), depth)
            for (of, depth), scores in sorted(found.items())
            if of == name and scores.get("speed") and scores.get("test")
        ]
        if not points:
            continue
        speeds, tests, depths = zip(*points, strict=True)
        axes.plot(speeds, tests, color=colour, marker=marker, markersize=5, linewidth=1, label=name)
        for speed, test, number in zip(speeds, tests, depths, strict=True):
            axes.annotate(str(number), (speed, test), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.set_xlabel("words per second of processor time")
    axes.set_ylabel("test F1 in percent, mean over seeds")
    axes.grid(linewidth=0.4)
    axes.legend(title="numbers: layers used")
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
