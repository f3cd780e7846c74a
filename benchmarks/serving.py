"""The cost and the robustness of the service: several pipelines at once, and many clients, some of them hostile.

    python -m benchmarks.serving run --texts TEXTS
    python -m benchmarks.serving report

TEXTS is a file with one text per line. PIPELINES pipelines over the embedded base, with a sequence_labeler and a
textcat, memorise a few texts, each with other labels, so that they differ. `lsbillm serve` then runs in a process of
its own, on one thread. `cost`: the same number of requests, one text each, to one pipeline and to all in turn, in
alternating rounds; the seconds are processor time of the service's process, so other load on the machine matters
little. `equal`: the service's answers under that load, compared with `nlp.pipe` of each pipeline alone. `load`: one in
HOSTILE_EVERY requests is hostile; good requests must get the right answer, and bad ones the right error.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam

from .record import ROOT, circumstances, read_result, write_result

RESULTS = ROOT / "benchmarks" / "results" / "serving.json"
PIPELINES, ROUNDS, REQUESTS, TEXTS = 8, 3, 500, 250
LOAD, AT_ONCE, HOSTILE_EVERY = 10_000, 200, 20
LISTENER = {"@architectures": "spacy-transformers.TransformerListener.v1", "pooling": {"@layers": "reduce_mean.v1"}}
OPTIONS = ("--port", "0", "--timeout", "120")
Answer = tuple[int, bytes]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="measure; 2 to 3 minutes on two quiet cores")
    command.add_argument("--texts", type=Path, required=True, help="a file with one text per line")
    commands.add_parser("report", help="print the result")
    args = parser.parse_args()
    if args.command == "run":
        lines = args.texts.read_text(encoding="utf8").splitlines()
        os.chdir(ROOT)
        with tempfile.TemporaryDirectory() as work:
            write_result(RESULTS, measure([line for line in lines if line.strip()][:TEXTS], Path(work)))
    print(json.dumps(read_result(RESULTS), indent=1))


def measure(texts: list[str], work: Path) -> dict[str, Any]:
    """Start the service and measure everything."""
    names = [f"p{number}" for number in range(PIPELINES)]
    for number, name in enumerate(names):
        trained_pipeline(texts[:8], number).to_disk(work / name)
    command = [sys.executable, "-m", "spacy", "lsbillm", "serve", *(str(work / name) for name in names), *OPTIONS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            port = next(int(found[1]) for line in process.stdout if (found := re.search(r"http://[\d.]+:(\d+)", line)))
            result = asyncio.run(measure_service(port, process.pid, texts, names, work))
            process.send_signal(signal.SIGTERM)
            result["status"] = process.wait()
        finally:
            process.kill()
    return {"circumstances": circumstances(), **result}


def trained_pipeline(texts: list[str], number: int) -> Language:
    """A pipeline that has memorised some texts, in which every second word has one of three labels.

    number (int): The number of the pipeline, which determines the labels.
    """
    fix_random_seed(number)
    nlp = spacy.blank("en")
    model = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": "assets/base"}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": model})
    head = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": LISTENER}
    nlp.add_pipe("sequence_labeler", config={"model": head})
    head = {"@architectures": "spacy-lsbillm.PooledTextCat.v1", "exclusive_classes": True, "tok2vec": LISTENER}
    nlp.add_pipe("textcat", config={"model": head})
    examples = []
    for place, text in enumerate(texts):
        doc = nlp.make_doc(text)
        kind = f"k{(place + number) % 3}"
        spans = [(token.idx, token.idx + len(token), kind) for token in doc if (token.i + number) % 2]
        cats = {f"k{i}": float(f"k{i}" == kind) for i in range(3)}
        examples.append(Example.from_dict(doc, {"entities": spans, "cats": cats}))
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.002)
    for _ in range(4):
        nlp.update(examples, sgd=optimizer)
    return nlp


async def measure_service(port: int, pid: int, texts: list[str], names: list[str], work: Path) -> dict[str, Any]:
    """Measure a running service."""
    one = [(text, names[0]) for text in (texts * REQUESTS)[:REQUESTS]]
    # In the end, each pipeline has had each text.
    mixed = [(text, names[(i + i // len(texts)) % PIPELINES]) for i, (text, _) in enumerate(one)]
    seconds: dict[str, list[float]] = {"one": [], "mixed": []}
    answered: dict[tuple[str, str], Any] = {}
    await clients(port, [body(*request) for request in mixed[:100]])
    for _ in range(ROUNDS):
        for kind, requests in (("one", one), ("mixed", mixed)):
            before = processor_seconds(pid)
            answers = await clients(port, [body(*request) for request in requests])
            seconds[kind].append(processor_seconds(pid) - before)
            for request, (status, content) in zip(requests, answers, strict=True):
                assert status == 200, content
                answered[request] = json.loads(content)["documents"][0]
    ratios = [b / a for a, b in zip(seconds["one"], seconds["mixed"], strict=True)]
    shown = {kind: [round(value, 2) for value in values] for kind, values in seconds.items()}
    cost = {"requests": REQUESTS, "at_once": AT_ONCE, "seconds": shown, "ratio": round(statistics.median(ratios), 3)}
    print(cost, flush=True)
    loaded = await load(port, texts, names)
    print(loaded, flush=True)
    return {"cost": cost, "load": loaded, "equal": compare(answered, names, work)}


def processor_seconds(pid: int) -> float:
    """The seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(answered: dict[tuple[str, str], Any], names: list[str], work: Path) -> dict[str, Any]:
    """Compare the service's answers with those of each pipeline alone.

    answered (dict): The annotation of each text by each pipeline.
    RETURNS (dict): The number of documents with other spans, and the largest difference between scores.
    """
    furthest, other = 0.0, 0
    for name in names:
        nlp = spacy.load(work / name)
        texts = [text for text, pipeline in answered if pipeline == name]
        for doc in nlp.pipe(texts):
            record = answered[doc.text, name]
            alone = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
            if alone != [(ent["start"], ent["end"], ent["label"]) for ent in record["ents"]]:
                other += 1
                continue
            pairs = [(ent._.ent_score, found["score"]) for ent, found in zip(doc.ents, record["ents"], strict=True)]
            pairs += [(doc.cats[label], record["cats"][label]) for label in doc.cats]
            furthest = max([furthest, *(abs(a - b) for a, b in pairs)])
    return {"documents": len(answered), "with_other_spans": other, "largest_difference": furthest}


HOSTILE: dict[str, tuple[bytes, int]] = {
    "no JSON": (b'{"texts": ["a"', 400),
    "nested": (b"[" * 100_000, 400),
    "no text": (b'{"texts": [1]}', 422),
    "unknown pipeline": (b'{"texts": ["a"], "pipeline": "none"}', 404),
    "unknown mask": (b'{"texts": ["a"], "mask": "from:99"}', 422),
    "too large": (b" " * 2_000_000, 413),
    "too many": (json.dumps({"texts": ["a"] * 1001}).encode(), 413),
    "half a pair": (b'{"texts": ["\\ud800"]}', 200),
    "too long": (json.dumps({"texts": ["a " * 60_000]}).encode(), 200),
    "long": (json.dumps({"texts": ["a " * 1_000]}).encode(), 200),
    # These are incomplete: the client does not wait for an answer.
    "cut short": (b"POST /v1/annotate HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{", 0),
    "half a header": (b"POST /v1/ann", 0),
    "garbage": (bytes(range(256)) * 4, 0),
}


async def load(port: int, texts: list[str], names: list[str]) -> dict[str, Any]:
    """Send many requests, and count how they were answered."""
    kinds = list(HOSTILE)
    requests: list[tuple[str, bytes]] = []
    for i in range(LOAD):
        if i % HOSTILE_EVERY:
            requests.append(("good", body(texts[i % len(texts)], names[i % PIPELINES])))
        else:
            requests.append((kind := kinds[i // HOSTILE_EVERY % len(kinds)], HOSTILE[kind][0]))
    begun = time.monotonic()
    answers = await clients(port, [content for _, content in requests])
    seconds = time.monotonic() - begun
    wrong = Counter()
    for i, ((kind, _), (status, content)) in enumerate(zip(requests, answers, strict=True)):
        right = status == (200 if kind == "good" else HOSTILE[kind][1])
        if right and kind == "good":
            right = json.loads(content)["documents"][0]["text"] == texts[i % len(texts)]
        if not right:
            wrong[f"{kind}: {status}"] += 1
    after = await clients(port, [body(texts[0], names[0])])
    return {
        "requests": LOAD,
        "at_once": AT_ONCE,
        "hostile": sum(kind != "good" for kind, _ in requests),
        "statuses": dict(Counter(str(status) for status, _ in answers)),
        "wrong": dict(wrong),
        "answers_afterwards": after[0][0] == 200,
        "seconds": round(seconds, 1),
    }


def body(text: str, pipeline: str) -> bytes:
    """The body of a request."""
    return json.dumps({"texts": [text], "pipeline": pipeline}).encode()


async def clients(port: int, contents: list[bytes]) -> list[Answer]:
    """Send requests from as many clients as are allowed at once, each over a connection that it keeps while it can.

    RETURNS (list): The status and body of each answer. The status is 0 if none was awaited, -1 if none came.
    """
    answers: list[Answer] = [(-1, b"")] * len(contents)
    waiting = iter(range(len(contents)))

    async def client() -> None:
        connection: Any = None
        for number in waiting:
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", port)
                answers[number], kept = await send(*connection, contents[number])
            except (OSError, EOFError):
                kept = False
            if connection is not None and not kept:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return answers


async def send(reader: Any, writer: Any, content: bytes) -> tuple[Answer, bool]:
    """Send one request.

    RETURNS (tuple[Answer, bool]): The answer, and whether the connection is still open.
    """
    if any(content == hostile for hostile, status in HOSTILE.values() if not status):
        writer.write(content)
        return (0, b""), False
    head = b"POST /v1/annotate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content)
    writer.write(head + content)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(re.search(rb"content-length: (\d+)", answer)[1])
    return (int(answer.split()[1]), await reader.readexactly(length)), b"connection: close" not in answer


if __name__ == "__main__":
    main()
