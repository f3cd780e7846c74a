"""The gain from more processes: a step measured with one and with two, and a projection to more of them.

    python -m benchmarks.scaling measure          the time of a training step with 1 and 2 processes, on this CPU
    python -m benchmarks.scaling project          from these figures, or your own, to 64 GPUs and 1,000 machines

The projection is arithmetic, not a measurement; its assumptions are printed with it.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.training import loop as spacy_loop
from spacy.util import load_config

from spacy_lsbillm.cli.convert import convert
from spacy_lsbillm.files import TemporaryFolder
from spacy_lsbillm.training import TrainSettings, train

from .record import ROOT, circumstances, write_result

RESULT = ROOT / "benchmarks" / "results" / "scaling.json"
SNIPS = ROOT / "assets" / "snips"
CONFIG = ROOT / "configs" / "sequence_labeler.cfg"
# An environment variable for the processes that torchrun starts: the file to which the first one writes its seconds.
TIMES = "LSBILLM_SCALING_TIMES"


def measure(steps: int, rounds: int, words: Sequence[int], result: Path) -> dict[str, Any]:
    """Measure the wall-clock time of training steps with one and two processes, in turn.

    They train on the SNIPS sentences of the repository. Each process has one thread and the same batches. Nothing else
    should run on the machine.

    words (Sequence[int]): The numbers of words per batch to measure.
    """
    batches = {}
    for size_of_batch in words:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for size in seconds:
                seconds[size].append(_median_step(steps, size, size_of_batch))
        medians = {size: statistics.median(found) for size, found in seconds.items()}
        batches[size_of_batch] = {"seconds": medians, "ratio": medians[1] / medians[2], "all": seconds}
    found = {
        "what": "seconds per training step by words per batch, median of the medians of rounds in turn",
        "config": str(CONFIG.relative_to(ROOT)),
        "steps": steps,
        "rounds": rounds,
        "batches": batches,
        **circumstances(),
    }
    write_result(result, found)
    return found


def _median_step(steps: int, size: int, words: int) -> float:
    with TemporaryFolder() as folder:
        times = folder / "times.json"
        module = ["-m", "benchmarks.scaling", "train", "--steps", str(steps), "--words", str(words)]
        if size == 1:
            command = [sys.executable, *module]
        else:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
            command = [*torchrun, *module]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", TIMES: str(times)}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(times.read_text(encoding="utf8"))
    # The first steps also allocate memory.
    return statistics.median(found[3:])


def train_and_time(steps: int, words: int) -> None:
    """Train in a process of its own, and write the seconds between steps."""
    config = load_config(CONFIG)
    # The only evaluation is after the first step, which is not counted.
    config["training"] |= {"max_steps": steps, "eval_frequency": steps + 1}
    config["training"]["batcher"]["size"] = words
    ends: list[float] = []
    original = spacy_loop.create_train_batches

    def noted(*args: Any, **kwargs: Any) -> Any:
        for batch in original(*args, **kwargs):
            ends.append(time.monotonic())
            yield batch

    spacy_loop.create_train_batches = noted
    with TemporaryFolder() as folder:
        convert([SNIPS / f"{name}.iob" for name in ("train", "dev")], folder, spacy.blank("en"))
        # Without variables, because the folder's name differs between processes while the files' content does not.
        config["corpora"]["train"]["path"] = str(folder / "train.spacy")
        config["corpora"]["dev"]["path"] = str(folder / "dev.spacy")
        config["paths"] |= {"train": None, "dev": None}
        config.to_disk(folder / CONFIG.name)
        train(TrainSettings(folder / CONFIG.name))
    if int(os.environ.get("RANK", "0")) == 0:
        between = [later - earlier for earlier, later in itertools.pairwise(ends)]
        Path(os.environ[TIMES]).write_text(json.dumps(between), encoding="utf8")


def project(args: argparse.Namespace) -> str:
    """The tables of the projected training and annotation."""
    lines = [
        f"A step of one GPU takes {args.step:g} s, of which {args.fixed:g} s do not shrink with its share of the "
        f"batch; gradients have {args.gradients:g} MB, the link transfers {args.link:g} GB/s with {args.latency:g} ms "
        "per message; all-reduce in a ring; evaluation and saving are not included.",
        "",
        "| GPUs | step, same batch | times faster | step, batch x GPUs | words per second, times one GPU's |",
        "|---|---|---|---|---|",
    ]
    for size in (1, 2, 4, 8, 16, 32, 64):
        ring = 2 * (size - 1) * (args.gradients / 1000 / args.link / size + args.latency / 1000)
        strong = args.fixed + (args.step - args.fixed) / size + ring
        weak = args.step + ring
        lines.append(
            f"| {size} | {strong:.3f} s | {args.step / strong:.1f} | {weak:.3f} s | {size * args.step / weak:.1f} |"
        )
    rate = args.documents
    lines += [
        "",
        f"One machine annotates {rate:g} documents of {args.bytes:g} bytes per second, and costs {args.price:g} per "
        f"hour; the store transfers {args.store:g} GB/s for all machines together, for input and output of twice that "
        f"size; one in {args.lost:g} machines is lost per hour, and half a shard of {args.shard:g} documents with it.",
        "",
        "| machines | documents per second | a billion documents take | a million documents cost | limited by |",
        "|---|---|---|---|---|",
    ]
    for size in (1, 10, 100, 1000):
        redone = 1 + args.shard / 2 / args.lost / 3600 / rate
        by_machines = size * rate / redone
        by_store = args.store * 1e9 / (3 * args.bytes)
        total = min(by_machines, by_store)
        cost = 1e6 / total / 3600 * size * args.price
        limit = "machines" if by_machines <= by_store else "the store"
        lines.append(f"| {size:,} | {total:,.0f} | {1e9 / total / 3600:,.1f} h | {cost:.3g} | {limit} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measured = commands.add_parser("measure", help="measure steps with one and two processes on this machine")
    measured.add_argument("--steps", type=int, default=30, help="steps per training (default 30)")
    measured.add_argument("--words", type=int, nargs="+", default=[600, 2400], help="per batch (default 600 2400)")
    measured.add_argument("--rounds", type=int, default=3, help="rounds taken in turn (default 3)")
    measured.add_argument("--result", type=Path, default=RESULT)
    trained = commands.add_parser("train", help="(started by measure)")
    trained.add_argument("--steps", type=int, required=True)
    trained.add_argument("--words", type=int, required=True)
    projected = commands.add_parser("project", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, value, what in (
        ("step", 1.0, "seconds per training step on one GPU"),
        ("fixed", 0.1, "seconds of a step that do not shrink with the share of the batch"),
        ("gradients", 170.0, "MB of gradients; 170 is rank 16 on all linear layers of an 8B base"),
        ("link", 20.0, "GB/s between GPUs; 20 is a network of 200 Gbit/s, NVLink has over 200"),
        ("latency", 0.05, "ms per message"),
        ("documents", 100.0, "documents that one machine annotates per second"),
        ("bytes", 500.0, "bytes of text per document"),
        ("price", 2.0, "price of a machine per hour, in any currency"),
        ("store", 10.0, "GB/s of the object store, for all machines together"),
        ("lost", 100.0, "one in how many machines is lost per hour"),
        ("shard", 1000.0, "documents per shard"),
    ):
        projected.add_argument(f"--{name}", type=float, default=value, help=what)
    args = parser.parse_args(arguments)
    if args.command == "measure":
        print(json.dumps(measure(args.steps, args.rounds, args.words, args.result), indent=2))
    elif args.command == "train":
        train_and_time(args.steps, args.words)
    else:
        print(project(args))


if __name__ == "__main__":
    main()
