"""`lsbillm annotate` while its processes, its nodes and the command itself are killed.

python -m benchmarks.reliability.annotating --documents 20000
python -m benchmarks.reliability.annotating --documents 20000 --ray

Each document must be annotated exactly once, as `nlp.pipe` annotates it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import spacy
from spacy.language import Language

WORDS = ("the", "a", "cat", "went", "to", "and", "saw", "of", "it", "then", "with", "for", "book", "play", "weather")
PLACES = ("Paris", "Rome", "Berlin", "Zagreb", "Boston", "London", "Madrid", "Vienna", "Oslo", "Lisbon")
# Seconds between two checks of a run's progress, and the time limit of a run.
LOOK, PATIENCE = 0.2, 3600.0
# A word that kills the process that reads it.
DEADLY = "deadlydeadly"
CODE = f'''
import os

from spacy.language import Language


@Language.component("fragile")
def fragile(doc):
    if "{DEADLY}" in doc.text:
        os._exit(9)
    return doc
'''


def pipeline(code: Path) -> Language:
    """A pipeline with an entity ruler, and a component that dies of one word."""
    spacy.util.import_file("code", code)
    nlp = spacy.blank("en")
    nlp.add_pipe("fragile")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PLACE", "pattern": place} for place in PLACES])
    return nlp


def write_corpus(path: Path, documents: int, hostile: int, draw: random.Random) -> tuple[dict[str, str], set[int]]:
    """Write a JSONL file with some hostile documents.

    RETURNS (tuple): The texts of the documents that can be annotated, by id, and the line numbers of the others.
    """
    texts: dict[str, str] = {}
    broken: set[int] = set()
    odd = set(draw.sample(range(documents), hostile))
    kinds = ["empty", "long", "too long", "bytes", "cut", "deadly", "surrogate"]
    with path.open("wb") as file:
        for i in range(documents):
            text = " ".join(draw.choices(WORDS + PLACES, k=int(draw.lognormvariate(2.5, 0.8)) + 1))
            kind = kinds[i % len(kinds)] if i in odd else ""
            if kind == "empty":
                text = ""
            elif kind == "long":
                text = (text + " ") * (900_000 // (len(text) + 1))
            elif kind == "too long":
                text = (text + " ") * (1_048_576 // (len(text) + 1) + 1)
            elif kind == "deadly":
                # One is enough, because it kills several processes.
                text += f" {DEADLY}" if not any(DEADLY in one for one in texts.values()) else ""
            line = json.dumps({"id": f"d{i}", "text": text}).encode()
            if kind == "bytes":
                line = line[:-3] + b"\xff\xfe" + line[-3:]
            elif kind == "cut":
                line = line[: len(line) // 2]
            elif kind == "surrogate":
                line = line.replace(b'"text": "', b'"text": "\\ud800')
            file.write(line + b"\n")
            if kind in ("too long", "bytes", "cut", "surrogate"):
                broken.add(i + 1)
            else:
                texts[f"d{i}"] = text
    return texts, broken


def expected(nlp: Language, texts: dict[str, str]) -> Iterator[tuple[str, str, list[tuple[int, int, str]]]]:
    """The annotation by one process."""
    for doc, id_ in nlp.pipe(((text, id_) for id_, text in texts.items()), as_tuples=True):
        yield id_, doc.text, [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]


def found(output: Path) -> Iterator[tuple[str, str, list[tuple[int, int, str]]]]:
    """The annotation in the shards, in their order."""
    for path in sorted((output / "shards").iterdir()):
        for line in path.read_text(encoding="utf8").splitlines():
            said = json.loads(line)
            yield said["id"], said["text"], [(ent["start"], ent["end"], ent["label"]) for ent in said["ents"]]


class Cluster:
    """A Ray cluster of two nodes on this machine with one core each, and a head without cores."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]
        self.address = self._cluster.address

    def kill_node(self) -> str:
        """Kill a node without warning the others, and start another one."""
        node = self._nodes.pop(0)
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._cluster.add_node(num_cpus=1))
        return "a node"

    def close(self) -> None:
        self._cluster.shutdown()


def kill_worker(driver: psutil.Process) -> str:
    """Kill a process that annotates.

    RETURNS (str): A description of what was killed, "" for nothing.
    """
    workers = [
        one
        for one in driver.children(recursive=True)
        if "multiprocessing.forkserver" in " ".join(one.cmdline()) and one.ppid() != driver.pid
    ]
    if not workers:
        return ""
    random.choice(workers).kill()
    return "a process"


def run(command: list[str], output: Path, kills: list[tuple[float, str]], items: int, cluster: Cluster | None) -> float:
    """Run a command, and kill things while it runs.

    kills (list[tuple[float, str]]): What is killed, and at which share of the documents in shards.
    RETURNS (float): The seconds it took.
    """
    begun = time.monotonic()
    driver = psutil.Popen(command)
    kills = list(kills)
    while driver.poll() is None:
        if time.monotonic() - begun > PATIENCE:
            driver.kill()
            raise TimeoutError("the run does not end")
        time.sleep(LOOK)
        if not kills or share_done(output, items) < kills[0][0]:
            continue
        what = kills[0][1]
        if what == "driver":
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            killed = "the driver"
        else:
            killed = cluster.kill_node() if cluster else kill_worker(driver)
        if killed:
            print(f"{time.monotonic() - begun:6.1f} s: killed {killed} at {kills[0][0]:.0%}", flush=True)
            kills.pop(0)
        if what == "driver":
            driver = psutil.Popen(command)
    if driver.returncode:
        raise SystemExit(f"the command ended with status {driver.returncode}")
    if kills:
        raise SystemExit(f"the run ended before {kills} could be killed: use more documents")
    return time.monotonic() - begun


def share_done(output: Path, items: int) -> float:
    """The share of the documents that are in shards."""
    path = output / "done.jsonl"
    lines = path.read_text(encoding="utf8").splitlines() if path.is_file() else []
    done = 0
    for line in lines:
        try:
            done += json.loads(line)["items"]
        except ValueError:
            continue
    return done / items


def check(output: Path, nlp: Language, texts: dict[str, str], broken: set[int]) -> dict[str, Any]:
    """Check the output of a run.

    RAISES (AssertionError): A document is lost, duplicated, out of order or annotated differently.
    """
    deadly = {id_ for id_, text in texts.items() if DEADLY in text}
    calm = {id_: text for id_, text in texts.items() if id_ not in deadly}
    count = 0
    ids = set()
    for one, other in zip(expected(nlp, calm), found(output), strict=True):
        assert one == other, (one[0], other[0])
        ids.add(other[0])
        count += 1
    assert count == len(ids) == len(calm)
    failures = [json.loads(line) for line in (output / "failures.jsonl").read_text(encoding="utf8").splitlines()]
    places = [failure["place"] for failure in failures]
    assert len(places) == len(set(places))
    dead = {f"corpus.jsonl:{int(id_[1:]) + 1}" for id_ in deadly}
    assert set(places) == {f"corpus.jsonl:{number}" for number in broken} | dead
    assert not list((output / "shards").glob("*.partial"))
    return {"annotated and equal": count, "set aside": len(failures), "of them deadly": len(deadly)}


def main(arguments: list[str] | None = None) -> None:
    """Make a corpus, annotate it while things are killed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--hostile", type=int, default=50)
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", action="store_true", help="use a cluster of two nodes, and kill a node twice")
    parser.add_argument("--work", type=Path, help="folder for all files, which is kept")
    args = parser.parse_args(arguments)
    work = args.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    (work / "code.py").write_text(CODE, encoding="utf8")
    nlp = pipeline(work / "code.py")
    nlp.to_disk(work / "pipeline")
    texts, broken = write_corpus(work / "corpus.jsonl", args.documents, args.hostile, random.Random(args.seed))
    output = work / "annotated"
    command = [sys.executable, "-m", "spacy", "lsbillm", "annotate", str(work / "pipeline"), str(work / "corpus.jsonl")]
    command += [str(output), "--code", str(work / "code.py"), "--shard-size", str(args.shard_size), "--quiet"]
    os.environ["OMP_NUM_THREADS"] = "1"
    cluster = Cluster() if args.ray else None
    command += ["--ray", cluster.address] if cluster else ["--processes", str(args.processes)]
    kills = [(0.1, "worker"), (0.4, "driver"), (0.7, "worker")]
    try:
        seconds = run(command, output, kills, args.documents, cluster)
    finally:
        if cluster:
            cluster.close()
    print(check(output, nlp, texts, broken), f"{seconds:.0f} seconds")
    again = subprocess.run(command, check=True, capture_output=True, text=True) if not cluster else None
    if again:
        print(again.stdout.strip())
    if args.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
