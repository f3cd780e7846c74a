"""Ways to see right: the same base with layers unmasked, with the text repeated, and both.

    python -m benchmarks.ways run --data DATA
    python -m benchmarks.ways time --data DATA
    python -m benchmarks.ways report

Every way has the same data, epochs and settings, those of `benchmarks.tasks`; nothing is tuned for a single way. The
best epoch is chosen on the development set. Without --base it is the embedded base. An interrupted run continues with
the same command, and a larger one, with more seeds, sets or ways, computes only what has no result yet. `time` measures
predictions and updates of all ways, in turn, in processor time of one thread.

Two ways need bases that are made beforehand, from the text that the embedded base was trained on (its first 6 MB, and
its held-out text), with the same number of pieces each, 2 % of those it was trained on:

    python -m spacy lsbillm adapt assets/base TEXT benchmarks/work/adapted/mntp --valid VALID --tokens 500000 \\
        --rate 0.001
    python -m spacy lsbillm adapt assets/base TEXT benchmarks/work/adapted/causal --valid VALID --tokens 500000 \\
        --rate 0.001 --objective causal

For another base they are made in the same way, in benchmarks/work/adapted/NAME, where NAME is that of its folder.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Corpus
from spacy.training.initialize import init_nlp
from spacy.util import minibatch
from spacy.vocab import Vocab

from .record import ROOT, circumstances
from .store import tables
from .tasks.arguments import add_base_argument, add_device_argument, add_run_arguments
from .tasks.cell import Run
from .tasks.models import BASE, Budget, Compared, layers_of, make_config, on_base
from .tasks.report import cell
from .tasks.sets import SETS

RESULTS = ROOT / "benchmarks" / "results" / "ways"
# Multiple-choice sets are left out, because the embedded base is at chance on them.
ROWS = [name for name, data_set in SETS.items() if data_set.kind != "choice"]
CAUSAL, ALL = "none", "all"
ADAPTED = "benchmarks/work/adapted"
# Attempts to gain more from repetition; they must be named to be included. The rates are also tried without repetition,
# so that both have had the same choice.
REPEAT_THIRD = "repeat1_third"
RATES = {(way, factor): f"{way}_rate{factor:g}" for way in (ALL, "repeat1") for factor in (0.5, 2.0)}
# For the command `time`.
ROUNDS, TEXTS, BATCH = 5, 200, 16


def ways_of(base: str, depth: int | None = None) -> dict[str, Compared]:
    """The ways that are compared, by name.

    base (str): The embedded base, or a folder.
    depth (int | None): How many of the base's first layers all ways use; None for all.
    """
    layers = depth or layers_of(base)
    third = layers // 3
    ways = {
        CAUSAL: Compared("causal", unmask="none"),
        ALL: Compared("every layer unmasked"),
        "third": Compared("the middle third unmasked", unmask=f"layers:{third}-{layers - third - 1}"),
        "warmup": Compared("every layer, gradually over the first two of four epochs", unmask_rounds=2),
        "repeat1": Compared("causal, the text twice", unmask="none", repeat=1),
        "repeat2": Compared("causal, the text three times", unmask="none", repeat=2),
        "repeat1_all": Compared("every layer unmasked, the text twice", repeat=1),
        "repeat1_half": Compared(
            "causal, the text twice, half of the layers", unmask="none", repeat=1, depth=layers // 2
        ),
    }
    ways[REPEAT_THIRD] = replace(ways["third"], words="the middle third unmasked, the text twice", repeat=1)
    ways = {name: replace(way, depth=way.depth or depth) for name, way in on_base(base, ways).items()}
    for (way, factor), name in RATES.items():
        scaled = replace(ways[way].tuned, scale=ways[way].tuned.scale * factor)
        ways[name] = replace(ways[way], words=f"{ways[way].words}, {factor:g} times the adapter's rate", tuned=scaled)
    adapted = ADAPTED if base == BASE else f"{ADAPTED}/{Path(base).name}"
    # Adapted bases get the settings of the base that they were made from.
    unmasked = replace(ways[ALL], base=f"{adapted}/mntp")
    ways["adapted_all"] = replace(unmasked, words="adapted to both sides, every layer unmasked")
    ways["continued_all"] = replace(
        unmasked, words="trained on causally, every layer unmasked", base=f"{adapted}/causal"
    )
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ways", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shown = argparse.ArgumentDefaultsHelpFormatter
    run = commands.add_parser("run", help="train and score what has no result yet", formatter_class=shown)
    add_run_arguments(run, ROWS, examples=1000, dev=500)
    add_base_argument(run)
    add_device_argument(run)
    add_depth_argument(run)
    run.add_argument(
        "--ways",
        nargs="+",
        metavar="WAY",
        help="columns of the table; default: all but the attempts to gain more from repetition",
    )
    timed = commands.add_parser("time", help="measure predictions and updates", formatter_class=shown)
    add_run_arguments(timed, ["snips_slots"], examples=1000, dev=500)
    add_base_argument(timed)
    add_depth_argument(timed)
    timed.add_argument("--ways", nargs="+", metavar="WAY", help="rows of the table; default: likewise")
    for command in (run, timed, commands.add_parser("report", help="print the table and write it")):
        command.add_argument("--results", type=Path, help="file of results, by default named after the base")
    args = parser.parse_args()
    if args.command == "report":
        for path in [args.results] if args.results else sorted(RESULTS.glob("*.jsonl")):
            report(path)
        return
    results = (args.results or RESULTS / f"{Path(args.base).name}.jsonl").resolve()
    data, work = args.data.resolve(), args.work.resolve()
    os.chdir(ROOT)
    if not Path(args.base).is_dir():
        raise SystemExit(f"there is no {args.base}: name the folder of a base with --base.")
    if args.depth is not None and not 2 <= args.depth <= layers_of(args.base):
        raise SystemExit(
            f"--depth {args.depth} is not allowed. {args.base} has {layers_of(args.base)} layers; "
            f"use at least 2 of them."
        )
    ways = ways_of(args.base, args.depth)
    unknown = sorted(set(args.ways or ()) - set(ways))
    if unknown:
        raise SystemExit(f"--ways {unknown[0]} is not allowed. Use some of: {', '.join(ways)}.")
    named = args.ways or [way for way in ways if way not in (REPEAT_THIRD, *RATES.values())]
    missing = sorted({str(ways[way].base) for way in named if not Path(str(ways[way].base)).is_dir()})
    if missing:
        raise SystemExit(f"there is no {missing[0]}: make it with the command in --help, or leave its way out.")
    limits = {"train": args.examples, "dev": args.dev, "test": args.test}
    table = Run(data, work, results, limits, Budget(epochs=args.epochs), models=ways, device=vars(args).get("device"))
    if args.command == "run":
        table.cells([(name, way, seed) for seed, name, way in product(args.seeds, args.sets, named)])
        return
    torch.set_num_threads(1)
    for name in args.sets:
        found = time_ways(name, {way: ways[way] for way in named}, table.prepared(name))
        table.store.write(f"{name}.speed", {"set": name, "seconds": found, **circumstances()})


def add_depth_argument(command: argparse.ArgumentParser) -> None:
    """Add the argument for the number of the base's layers."""
    command.add_argument("--depth", type=int, help="number of the base's first layers to use (default: all)")


def time_ways(name: str, ways: Mapping[str, Compared], paths: dict[str, Path]) -> dict[str, dict[str, list[float]]]:
    """Seconds of processor time for predictions and updates, by way.

    Predictions are of some texts of the test set, updates are on as many examples of the training set. They are
    measured in rounds over all ways.
    """
    kind = SETS[name].kind
    corpora = {split: str(paths[split]) for split in ("train", "dev")}
    pipelines: dict[str, Language] = {}
    for way, model in ways.items():
        config = make_config(model, kind, corpora, 1, Budget(), seed=0)
        # A trained pipeline folds its adapter in if it is the only one over its base; these pipelines share theirs.
        config["components"]["transformer"]["model"] |= {"fold_adapter": "always", "unmask_warmup": 0}
        pipelines[way] = init_nlp(config)
    texts = [doc.text for doc in list(DocBin().from_disk(paths["test"]).get_docs(Vocab()))[:TEXTS]]
    seconds: dict[str, dict[str, list[float]]] = {way: {"prediction": [], "training": []} for way in ways}
    for number in range(ROUNDS + 1):
        for way, nlp in pipelines.items():
            docs = [nlp.make_doc(text) for text in texts]
            begun = time.process_time()
            for _ in nlp.pipe(docs):
                pass
            predicted = time.process_time()
            examples = list(islice(Corpus(paths["train"])(nlp), TEXTS))
            optimizer, updated = nlp.create_optimizer(), time.process_time()
            for batch in minibatch(examples, BATCH):
                nlp.update(batch, sgd=optimizer)
            # The first round, which loads lazily and folds, does not count.
            if number:
                seconds[way]["prediction"].append(predicted - begun)
                seconds[way]["training"].append(time.process_time() - updated)
    return seconds


def report(path: Path) -> None:
    """Print the tables of a file of results, and write them beside it."""
    for name, store in tables(path, "run").items():
        test: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        speed: dict[str, dict[str, dict[str, list[float]]]] = {}
        for _, found in store.results():
            if "seconds" in found:
                speed[found["set"]] = found["seconds"]
                continue
            test[found["set"], found["model"]][found["seed"]] = 100 * found["test"]
        parts = [scores(test), differences(test, CAUSAL), differences(test, ALL)] if test else []
        text = "\n".join([*parts, *(prices(name, seconds) for name, seconds in speed.items())])
        store.beside("md").write_text(text, encoding="utf8")
        print(f"{name}\n\n{text}")


def columns(test: Mapping[tuple[str, str], object]) -> list[str]:
    """The ways that have results, in the order in which they first occur."""
    return list(dict.fromkeys(way for _, way in test))


def scores(test: Mapping[tuple[str, str], Mapping[int, float]]) -> str:
    """Markdown: a row per data set, a column per way, mean and standard deviation over seeds."""
    ways = columns(test)
    lines = ["| data set | " + " | ".join(ways) + " |", "|---|" + "---|" * len(ways)]
    for name in SETS:
        if any(key[0] == name for key in test):
            lines.append(
                f"| {name} | " + " | ".join(cell([*test.get((name, way), {}).values()]) for way in ways) + " |"
            )
    return "\n".join(lines) + "\n"


def differences(test: Mapping[tuple[str, str], Mapping[int, float]], other: str) -> str:
    """Markdown: each way minus one of them, as means over the labelling sets and over the others.

    Only seeds that both have count.
    """
    lines = [
        f"| above {other} | sequence labelling | better in | p | the others | better in | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in columns(test):
        if way == other:
            continue
        gains: dict[bool, list[float]] = {True: [], False: []}
        for name, data_set in SETS.items():
            ours, theirs = test.get((name, way), {}), test.get((name, other), {})
            pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
            if pairs:
                gains[data_set.kind == "sequence"].append(mean(pairs))
        cells = []
        for found in gains.values():
            better = sum(gain > 0 for gain in found)
            cells += (
                [f"{mean(found):+.1f}", f"{better} of {len(found)}", f"{sign_flips(found):.3f}"] if found else [""] * 3
            )
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def prices(name: str, seconds: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Markdown: the processor time of each way in units of the first way's, as medians of the ratios over rounds."""
    ways = list(seconds)
    lines = [f"| {name}, time over {ways[0]} | " + " | ".join(ways[1:]) + " |", "|---|" + "---|" * (len(ways) - 1)]
    for what in ("prediction", "training"):
        cells = []
        for way in ways[1:]:
            pairs = zip(seconds[way][what], seconds[ways[0]][what], strict=True)
            found = [one / other for one, other in pairs]
            cells.append(f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})")
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sign_flips(gains: list[float]) -> float:
    """The exact two-sided p-value of Fisher's randomisation test for pairs.

    It is the share of all choices of signs for which the sum is at least as far from 0.

    gains (list[float]): The mean difference for each data set, at most 20.
    """
    signs = 1 - 2 * (np.arange(2 ** len(gains))[:, None] >> np.arange(len(gains)) & 1)
    sums = np.abs(signs @ np.asarray(gains))
    return float(np.mean(sums >= abs(sum(gains)) - 1e-9))


if __name__ == "__main__":
    main()
