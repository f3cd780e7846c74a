"""One pipeline in many threads and processes, abandoned streams, interrupts, and a process that runs for long."""

import contextlib
import gc
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc

import spacy_lsbillm

from .child import fresh, in_child
from .part import Broken, Check, Part
from .small import TEXTS, examples, make_base, train_pipeline

THREADS = 8
# The vectors of a document alone and in a batch differ in their last digits.
TOLERANCE = 1e-4
# Documents in one process, after how many of them memory is first measured, and how much it may have grown at the end.
DOCUMENTS, FIRST, GROWTH = 50_000, 5_000, 0.03
WORDS = tuple(word for text in TEXTS for word in text.split())


def texts_of(chance: random.Random, count: int) -> list[str]:
    """Short and long texts, some of them empty."""
    made = []
    for _ in range(count):
        length = chance.choice((0, 1, 3, 8, 8, 15, 90))
        made.append(" ".join(chance.choices(WORDS, k=length)))
    return made


def seen(doc: Doc) -> tuple[Any, ...]:
    """A pipeline's predictions for a document."""
    entities = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    # A document without tokens has no vectors.
    vectors = getattr(doc._.trf_data.model_output, "last_hidden_state", None) if len(doc) else None
    return doc.text, entities, doc.cats, np.zeros(0) if vectors is None else vectors


def expect_same(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    """Compare documents with the results of one thread.

    RAISES (Broken): They differ.
    """
    if len(found) != len(wanted):
        raise Broken(f"{len(found)} documents came back, of {len(wanted)}")
    for one, other in zip(found, wanted, strict=True):
        if one[0] != other[0]:
            raise Broken(f"{one[0]!r} came in the place of {other[0]!r}")
        if one[3].shape != other[3].shape or not np.allclose(one[3], other[3], rtol=TOLERANCE, atol=TOLERANCE):
            raise Broken(f"the vectors of {one[0]!r} are not those of one thread")
        if one[1] != other[1] or not _close(one[2], other[2]):
            raise Broken(f"{one[0]!r} has {one[1:3]}, with one thread {other[1:3]}")


def _close(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) <= TOLERANCE for name in one)


def descriptors() -> int:
    """The number of open files of this process."""
    return len(os.listdir("/proc/self/fd"))


def memory() -> int:
    """The resident memory of this process, in bytes."""
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


class Rounds:
    """What can be tried with a pipeline.

    Each method runs in a forked process with its own time limit, so that one that hangs is noticed.

    work (Path): A folder.
    """

    def __init__(self, work: Path) -> None:
        base = make_base(work / "base")
        self.nlp = train_pipeline(base)
        self.other = train_pipeline(base, 2, unmask="from:2", fold_adapter="never")
        spacy_lsbillm.save(self.nlp, work / "pipeline")
        self.stored = work / "pipeline"

    def alone(self, texts: list[str], nlp: Language | None = None) -> list[tuple[Any, ...]]:
        """The results of one thread, one document at a time."""
        return [seen((nlp or self.nlp)(text)) for text in texts]

    def threads(self, chance: random.Random) -> None:
        """Eight threads, each with some of the texts, some by call and some by stream."""
        texts = texts_of(chance, 24)
        wanted = self.alone(texts)
        parts = [texts[i::THREADS] for i in range(THREADS)]
        streamed = [chance.random() < 0.5 for _ in parts]
        start = threading.Barrier(THREADS)

        def ask(number: int) -> list[tuple[Any, ...]]:
            start.wait()
            if streamed[number]:
                return [seen(doc) for doc in self.nlp.pipe(parts[number], batch_size=2)]
            return [seen(self.nlp(text)) for text in parts[number]]

        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(ask, range(THREADS)))
        for number, docs in enumerate(found):
            expect_same(docs, wanted[number::THREADS])

    def threads_and_a_learner(self, chance: random.Random) -> None:
        """The same while another pipeline over the same base is trained, and a third one is loaded and saved."""
        texts = texts_of(chance, 16)
        wanted = self.alone(texts)
        stop = threading.Event()
        data = examples(self.other)

        def learn() -> None:
            while not stop.is_set():
                self.other.update(data)

        def load() -> None:
            while not stop.is_set():
                spacy.load(self.stored).to_bytes()

        with ThreadPoolExecutor(THREADS + 2) as pool:
            others = [pool.submit(learn), pool.submit(load)]
            try:
                asked = [pool.submit(self.alone, texts[i::THREADS]) for i in range(THREADS)]
                found = [one.result() for one in asked]
            finally:
                stop.set()
            for one in others:
                one.result()
        for number, docs in enumerate(found):
            expect_same(docs, wanted[number::THREADS])

    def processes(self, chance: random.Random) -> None:
        """`n_process` of 2 and 4, with the platform's default here: fork."""
        texts = texts_of(chance, 24)
        wanted = self.alone(texts)
        before = descriptors()
        for doc_batch in (chance.randint(1, 12),):
            docs = self.nlp.pipe(texts, n_process=chance.choice((2, 4)), batch_size=doc_batch)
            expect_same([seen(doc) for doc in docs], wanted)
        gc.collect()
        if descriptors() > before + 2:
            raise Broken(f"{descriptors() - before} files more are open after n_process")

    def spawned(self, chance: random.Random) -> None:
        """`n_process` of 2 with spawn: the pipeline is pickled."""
        import multiprocessing

        multiprocessing.set_start_method("spawn", force=True)
        texts = texts_of(chance, 12)
        wanted = self.alone(texts)
        expect_same([seen(doc) for doc in self.nlp.pipe(texts, n_process=2, batch_size=4)], wanted)

    def fork_after_threads(self, chance: random.Random) -> None:
        """Forks while other threads are working, whose locks are never released in the child."""
        texts = texts_of(chance, 6)
        wanted = self.alone(texts)
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                self.alone(texts)

        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask) for _ in range(3)]
            try:
                for _ in range(3):
                    time.sleep(chance.uniform(0, 0.02))
                    self._forked(lambda: expect_same(self.alone(texts), wanted))
            finally:
                stop.set()
            for one in asked:
                one.result()

    @staticmethod
    def _forked(job: Callable[[], None]) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                job()
                code = 0
            finally:
                os._exit(code)
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                if status:
                    raise Broken(f"a fork ended with {status}")
                return
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise Broken("a fork hangs: more than 30 seconds")

    def abandoned(self, chance: random.Random) -> None:
        """Streams that are abandoned half-way, with one process and two; then the pipeline is used again."""
        texts = texts_of(chance, 24)
        wanted = self.alone(texts)
        before = descriptors()
        for processes in (1, chance.choice((1, 2))):
            stream = self.nlp.pipe(texts, batch_size=3, n_process=processes)
            taken = chance.randrange(len(texts))
            expect_same([seen(doc) for doc in islice(stream, taken)], wanted[:taken])
            if chance.random() < 0.5:
                stream.close()
            else:
                del stream
                gc.collect()
        expect_same([seen(doc) for doc in self.nlp.pipe(texts, batch_size=5)], wanted)
        gc.collect()
        if descriptors() > before + 2:
            raise Broken(f"{descriptors() - before} files more are open after streams were left")

    def interrupted(self, chance: random.Random) -> None:
        """SIGINT during prediction, training and saving; then the pipeline is used again."""
        texts = texts_of(chance, 12)
        nlp = self.nlp
        wanted = self.alone(texts)
        kind = chance.choice(("predict", "update", "save", "bytes"))
        data = examples(nlp)
        place = Path.cwd() / "interrupted"
        spacy_lsbillm.save(nlp, place)
        jobs: dict[str, Callable[[], Any]] = {
            "predict": lambda: self.alone(texts),
            # Without an optimizer, so the weights stay as they are.
            "update": lambda: nlp.update(data, sgd=False),
            "save": lambda: spacy_lsbillm.save(nlp, place),
            "bytes": lambda: nlp.to_bytes(),
        }
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for _ in range(3):
            timer = threading.Timer(chance.uniform(0.001, 0.1), os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                while True:
                    jobs[kind]()
            except KeyboardInterrupt:
                pass
            timer.join()
        expect_same(self.alone(texts), wanted)
        expect_same(self.alone(texts, spacy.load(place)), wanted)
        nlp.update(data)
        spacy_lsbillm.save(nlp, place)
        left = [name for name in os.listdir(Path.cwd()) if name.startswith(".")]
        if left:
            raise Broken(f"{left} was left by a save that was interrupted")

    def loaded_again(self, chance: random.Random) -> None:
        """Loading, serialising and dropping pipelines leaves no open files behind."""
        text = texts_of(chance, 1)
        counts = []
        for _ in range(4):
            nlp = spacy.load(self.stored)
            spacy.blank("en")
            copied = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
            expect_same(self.alone(text, copied), self.alone(text))
            del nlp, copied
            gc.collect()
            counts.append(descriptors())
        if counts[-1] > counts[1]:
            raise Broken(f"open files after each pipeline that was loaded and dropped: {counts}")

    def long(self, chance: random.Random, documents: int = DOCUMENTS, first: int = FIRST) -> None:
        """Many documents in one process: its memory and its number of open files do not grow."""
        texts = texts_of(chance, 200)
        before, files = 0, 0
        for number, doc in enumerate(self.nlp.pipe(islice(cycle(texts), documents), batch_size=200), 1):
            if number == first:
                before, files = memory(), descriptors()
            del doc
        after = memory()
        if after > before * (1 + GROWTH):
            raise Broken(f"{after / before - 1:.1%} more memory at {documents} documents than at {first}")
        if descriptors() > files:
            raise Broken(f"{descriptors() - files} files more are open at {documents} documents")


# The methods that run in turn, and those that run once or twice in a full campaign, by the number of their case.
OFTEN = (
    "threads",
    "processes",
    "abandoned",
    "fork_after_threads",
    "interrupted",
    "threads",
    "threads_and_a_learner",
    "loaded_again",
)
SELDOM = {60: "spawned", 120: "spawned", 180: "long"}


@contextlib.contextmanager
def open_concurrency(work: Path) -> Iterator[Check]:
    """Prepare the cases, see `Part.open`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rounds = Rounds(fresh(work))
    yield partial(_check, work, rounds)


def _check(work: Path, rounds: Rounds, number: int, chance: random.Random) -> None:
    kind = SELDOM.get(number) or OFTEN[number % len(OFTEN)]
    place = fresh(work / f"case-{os.getpid()}")
    try:
        in_child(partial(getattr(rounds, kind), chance), place)
    except Broken as error:
        raise Broken(f"{kind}: {error}") from None


PART = Part(
    name="concurrency",
    cases=200,
    what=(
        "8 threads on one pipeline, while another one is trained and a third one loaded; n_process 2 and 4 with fork "
        "and spawn; forks while threads are working; streams abandoned half-way; SIGINT; 50,000 documents in one "
        "process"
    ),
    holds=(
        "the same results as with one thread; nothing hangs; the number of open files does not grow; memory at 50,000 "
        "documents is within 3 % of that at 5,000"
    ),
    open=open_concurrency,
)
