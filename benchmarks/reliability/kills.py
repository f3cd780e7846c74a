"""Processes that are killed, and disks that are full or read-only, while something is written."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import spacy
import torch
from spacy.cli.package import package
from spacy.language import Language
from spacy.tokens import DocBin
from thinc.api import Config

import spacy_lsbillm
from spacy_lsbillm.errors import StorageError
from spacy_lsbillm.files import SEAL, sole_writer
from spacy_lsbillm.pretraining import PretrainingSettings, pretrain
from spacy_lsbillm.pretraining.run import Places
from spacy_lsbillm.saving.rewriting import rewrite
from spacy_lsbillm.search.experiment import Experiment
from spacy_lsbillm.search.folder import run_details
from spacy_lsbillm.search.report import write_report
from spacy_lsbillm.search.run import search
from spacy_lsbillm.search.strategies import Grid
from spacy_lsbillm.search.study import Study, claim_folder

from .child import SCRATCH, Disk, count_touches, fresh, in_child, is_disk_message, size_of
from .part import Broken, Check, Part
from .small import TEXTS, examples, make_base, make_pipeline, train_pipeline

# The only file that may remain among the temporary files: one lock per user, however often a job is done.
LOCK = f"spacy-lsbillm-{os.getuid() if hasattr(os, 'getuid') else ''}.lock"
MASKS = ("none", "all")
# The latest moment of a kill that is chosen by the clock, in units of the time of an undisturbed job.
LATEST = 1.1
# What a search imports when it begins and when it writes its report.
IMPORTED = ("alembic.command", "alembic.migration", "optuna.storages._rdb.models", "sqlalchemy.dialects.sqlite")
IMPORTED += ("matplotlib.pyplot", "matplotlib.backends.backend_svg")


class Job(ABC):
    """Something that writes, and the states that are allowed whenever it is stopped.

    name (str): Its name in reports.
    seconds (float): The time it takes undisturbed.
    touches (int): How often it touches files.
    """

    name: str
    seconds: float
    touches: int

    @abstractmethod
    def begin(self, place: Path) -> None:
        """Make the state before the job."""

    @abstractmethod
    def work(self, place: Path) -> None:
        """Do the job; a second call continues where the first was stopped."""

    @abstractmethod
    def look(self, place: Path) -> None:
        """Check the state after a stop.

        RAISES (Broken): Something is neither old nor new.
        """

    @abstractmethod
    def done(self, place: Path) -> None:
        """Check the state after the end.

        RAISES (Broken): Something differs from a job that was never stopped, or was left behind.
        """

    def measure(self, place: Path) -> None:
        """Do the job undisturbed, and measure how long that takes and how often it touches files."""
        self.begin(fresh(place))
        self.seconds, self.touches = count_touches(partial(self.work, place), place)


def content(folder: Path) -> dict[str, str]:
    """The digests of the files in a folder, by name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def expect_one_of(folder: Path, known: dict[str, dict[str, str]]) -> str:
    """Find the content of a folder among known ones.

    RETURNS (str): The name of the content.
    RAISES (Broken): It is none of them.
    """
    found = content(folder)
    for name, wanted in known.items():
        if found == wanted:
            return name
    closest = {name: sorted({*found.items()} ^ {*wanted.items()}) for name, wanted in known.items()}
    raise Broken(f"{folder.name} holds none of {', '.join(known)}; it differs in {json.dumps(closest)[:1500]}")


def expect_names(folder: Path, allowed: set[str]) -> None:
    """Check the names in a folder.

    RAISES (Broken): There are other names than the allowed ones.
    """
    left = sorted(set(os.listdir(folder)) - allowed)
    if left:
        raise Broken(f"{left} was left in {folder.name}")


def expect_clean(place: Path, allowed: set[str]) -> None:
    """Check that a case left nothing behind.

    RAISES (Broken): Something is left in the case's folder or among the temporary files.
    """
    expect_names(place, {*allowed, SCRATCH})
    if (place / SCRATCH).is_dir():
        # The lock file of a killed process is removed when another process takes a lock.
        with patch.object(tempfile, "tempdir", str(place / SCRATCH)), sole_writer(place / SCRATCH / "any"):
            pass
        expect_names(place / SCRATCH, {LOCK})


class Replacing(Job):
    """A folder that replaces another."""

    def __init__(self, name: str, old: Path, new: Path, write: Callable[[Path], None], loads: bool = True) -> None:
        self.name = name
        self._old, self._write, self._loads = old, write, loads
        self._known = {"the old": content(old), "the new": content(new)}
        if self._known["the old"] == self._known["the new"]:
            raise AssertionError(f"{name}: the old and the new are the same")

    def begin(self, place: Path) -> None:
        shutil.copytree(self._old, place / "pipeline")

    def work(self, place: Path) -> None:
        self._write(place / "pipeline")

    def look(self, place: Path) -> None:
        expect_one_of(place / "pipeline", self._known)

    def done(self, place: Path) -> None:
        if expect_one_of(place / "pipeline", self._known) != "the new":
            raise Broken("the job came to its end, and the old is there")
        expect_clean(place, {"pipeline"})


class SpacySaving(Replacing):
    """`nlp.to_disk`: the component's folder is replaced as a whole; the rest of the pipeline is written by spaCy."""

    def look(self, place: Path) -> None:
        known = {
            state: {name: found for name, found in files.items() if name.startswith("transformer/")}
            for state, files in self._known.items()
        }
        found = {f"transformer/{name}": it for name, it in content(place / "pipeline" / "transformer").items()}
        if found not in known.values():
            raise Broken(f"the component is neither the old nor the new: {sorted(found)}")


class Packaging(Job):
    """`spacy package`, which writes file by file: its input is unchanged, and a second call repairs the output."""

    name = "package"

    def __init__(self, pipeline: Path) -> None:
        self._pipeline = pipeline
        self._known = {"the pipeline": content(pipeline)}
        self._package: dict[str, dict[str, str]] = {}

    def measure(self, place: Path) -> None:
        super().measure(place)
        self._package = {"the package": content(place / "packages")}

    def begin(self, place: Path) -> None:
        shutil.copytree(self._pipeline, place / "pipeline")

    def work(self, place: Path) -> None:
        output = place / "packages"
        output.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            # spaCy keeps an existing card, which may be incomplete.
            (output / "en_small-0.0.1" / "README.md").unlink()
        package(place / "pipeline", output, name="small", version="0.0.1", create_sdist=False, force=True)

    def look(self, place: Path) -> None:
        expect_one_of(place / "pipeline", self._known)

    def done(self, place: Path) -> None:
        self.look(place)
        expect_one_of(place / "packages", self._package)
        expect_clean(place, {"pipeline", "packages"})


class Pretraining(Job):
    """A base from text, with a checkpoint at every second step."""

    name = "pretrain"

    def __init__(self) -> None:
        self._text = " ".join(TEXTS)
        self._settings = PretrainingSettings.read(
            {
                "tokenizer": {"vocab_size": 270, "every": 1},
                "model": {"layers": 1, "width": 8, "heads": 2, "key_value_heads": 2, "feed_forward": 8, "positions": 8},
                "training": {
                    "tokens": 6 * 2 * 8,
                    "batch": 2,
                    "micro_batch": 2,
                    "checkpoint_every": 2,
                    "lowercase_every": 0,
                    "precision": "float32",
                },
            }
        )
        self._whole: dict[str, str] = {}

    def measure(self, place: Path) -> None:
        super().measure(place)
        self._whole = self._kept(place)

    def _places(self, place: Path) -> Places:
        text = [place / "text.txt"]
        return Places(text, text, place / "base", place / "base.work")

    @staticmethod
    def _kept(place: Path) -> dict[str, str]:
        """The files of the base, without the content of those that contain times."""
        found = content(place / "base")
        timed = [name for name in ("pretraining.json", "README.md") if name in found]
        return {**found, **dict.fromkeys(timed, "")}

    def begin(self, place: Path) -> None:
        (place / "text.txt").write_text(self._text, encoding="utf8")

    def work(self, place: Path) -> None:
        places = self._places(place)
        if (places.output / "pretraining.json").is_file():
            return
        go_on = partial(pretrain, self._settings, places, torch.device("cpu"))
        try:
            go_on(resume=True)
        except StorageError as error:
            # Follow the advice in the message.
            if "Leave out --resume" not in str(error):
                raise
            go_on(resume=False)

    def look(self, place: Path) -> None:
        if (place / "base").is_dir() and os.listdir(place / "base") and self._kept(place) != self._whole:
            raise Broken(f"the output folder is written half: {sorted(self._kept(place))}")

    def done(self, place: Path) -> None:
        if self._kept(place) != self._whole:
            differing = {name for name, _ in self._kept(place).items() ^ self._whole.items()}
            raise Broken(f"the base is not what it is without a stop; it differs in {sorted(differing)}")
        json.loads((place / "base" / "pretraining.json").read_text(encoding="utf8"))
        expect_clean(place, {"text.txt", "base", "base.work"})
        kept = {"settings.json", "tokenizer", "training.tokens", "held-out.tokens", "checkpoint.pt", SEAL}
        expect_names(place / "base.work", kept)


class Searching(Job):
    """A search over two masks.

    real (bool): Whether to train; if not, trainings return immediately, so that the kill hits the storage.
    """

    def __init__(self, base: Path, work: Path, real: bool) -> None:
        self.name = "search" if real else "search without training"
        self._real = real
        nlp = make_pipeline(base, ("sequence_labeler",))
        docs = DocBin(docs=[example.reference for example in examples(nlp)])
        docs.to_disk(fresh(work) / "data.spacy")
        config = nlp.config.copy()
        for name in ("train", "dev"):
            config["corpora"][name] = {"@readers": "spacy.Corpus.v1", "path": str(work / "data.spacy")}
        config["training"] |= {"max_steps": 1, "eval_frequency": 1, "score_weights": {"ents_f": 1.0}}
        self._config = Config(config)

    def begin(self, place: Path) -> None:
        pass

    def work(self, place: Path) -> None:
        folder = place / "search"
        experiment = Experiment.of(self._config)
        folder.mkdir(exist_ok=True)
        study = Study(f"sqlite:///{folder / 'search.db'}", experiment.identity)
        claim_folder(folder, experiment.identity)
        plan = Grid(MASKS, [0], experiment.steps)
        if self._real:
            outcome = search(experiment, plan, study, folder, ways=MASKS, seeds=[0])
        else:
            with _trainings_that_sleep():
                outcome = search(experiment, plan, study, folder, ways=MASKS, seeds=[0])
        write_report(folder, outcome, experiment, run_details(Path("search.cfg"), "list", [0], None) | {"base": ""})

    def look(self, place: Path) -> None:
        folder = place / "search"
        for name in ("results.json", "search.json"):
            if (folder / name).is_file():
                json.loads((folder / name).read_text(encoding="utf8"))

    def done(self, place: Path) -> None:
        folder = place / "search"
        self.look(place)
        found = Study(f"sqlite:///{folder / 'search.db'}", Experiment.of(self._config).identity).results()
        if sorted(training.mask for training in found) != sorted(MASKS):
            raise Broken(f"finished are {list(found)}, not one training of each mask")
        expect_clean(place, {"search"})
        names = {"search.db", "search.db.lock", "search.json", ".search.json.lock", ".report.lock", "models"}
        expect_names(folder, {*names, "table.md", "results.json", "best.cfg", "report.html"})
        for mask in MASKS if self._real else ():
            expect_names(folder / "models" / mask, {"0-1"})
            spacy.load(folder / "models" / mask / "0-1" / "model-best")


@contextlib.contextmanager
def _trainings_that_sleep() -> Iterator[None]:
    import spacy_lsbillm.search.run as run

    kept = run.trainer
    record = {"curve": [], "seconds": 0.0, "scores": {}, "loss": 0.0}
    run.trainer = lambda *_: lambda training: (0.5 if training.mask == "all" else 0.25, record)  # type: ignore[assignment]
    try:
        yield
    finally:
        run.trainer = kept


@contextlib.contextmanager
def open_kills(work: Path) -> Iterator[Check]:
    """Prepare the cases, see `Part.open`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    with contextlib.chdir(fresh(work)):
        jobs = _jobs(work)
        # A process that is forked for a search would import them again.
        for name in IMPORTED:
            import_module(name)
        for job in dict.fromkeys(jobs):
            job.measure(work / "measure")
        yield partial(check_job, work, jobs)


def _jobs(work: Path) -> list[Job]:
    """The jobs, in the order in which they take turns; some occur several times."""
    base = make_base(work / "base_model")
    old, new = train_pipeline(base, 1), train_pipeline(base, 2)
    stored = {}
    for name, nlp in (("old", old), ("new", new)):
        spacy_lsbillm.save(nlp, work / name)
        for store_base in ("copy", "merged"):
            rewrite(work / name, work / f"{name}-{store_base}", store_base)
        stored[name] = work / name
    save = Replacing("save", stored["old"], stored["new"], partial(spacy_lsbillm.save, new))
    whole = SpacySaving("nlp.to_disk", stored["old"], stored["new"], partial(_to_disk, new))
    merge = Replacing(
        "merge", work / "old-merged", work / "new-merged", partial(rewrite, stored["new"], store_base="merged")
    )
    copy = Replacing(
        "merge --store-base copy", work / "old", work / "new-copy", partial(rewrite, stored["new"], store_base="copy")
    )
    again = Replacing("save command", work / "old-copy", work / "new-copy", partial(rewrite, work / "new-copy"))
    pretraining = Pretraining()
    storage = Searching(base, work / "storage", real=False)
    searching = Searching(base, work / "search", real=True)
    packaging = Packaging(stored["new"])
    return [
        save,
        merge,
        pretraining,
        whole,
        storage,
        save,
        copy,
        pretraining,
        again,
        save,
        merge,
        packaging,
        storage,
        whole,
        pretraining,
        searching,
    ]


def _to_disk(nlp: Language, path: Path) -> None:
    nlp.to_disk(path)


def check_job(work: Path, jobs: list[Job], number: int, chance: random.Random) -> None:
    """Run one case: stop a job, check its state, continue it, check again."""
    job = jobs[number % len(jobs)]
    place = fresh(work / f"case-{os.getpid()}")
    how = chance.random()
    try:
        if how < 0.8:
            _kill(job, place, chance)
        else:
            share = chance.random() if how < 0.95 else None
            in_child(partial(_without_room, job, place, share), place)
    except Broken as error:
        log = place.with_name(f"{place.name}.log")
        said = log.read_text(encoding="utf8", errors="replace")[-1000:] if log.is_file() else ""
        raise Broken(f"{job.name}: {error}\n{said}".rstrip()) from None
    finally:
        place.with_name(f"{place.name}.log").unlink(missing_ok=True)
    shutil.rmtree(place)


def _kill(job: Job, place: Path, chance: random.Random) -> None:
    job.begin(place)
    # In a quarter of the cases the next start is killed as well.
    for _ in range(2 if chance.random() < 0.25 else 1):
        if chance.random() < 0.5:
            finished = in_child(partial(job.work, place), place, seconds=chance.uniform(0, LATEST * job.seconds))
        else:
            finished = in_child(partial(job.work, place), place, touches=chance.randint(1, job.touches))
        job.look(place)
        if finished:
            break
    in_child(partial(job.work, place), place)
    job.done(place)


def _without_room(job: Job, place: Path, share: float | None) -> None:
    """Run a job in the child process with a full or a read-only disk.

    share (float | None): The share of the needed space that is available; None for a read-only disk.
    """
    disk = Disk(place)
    # The current folder is hidden below the mounted one.
    os.chdir(place)
    (place / SCRATCH).mkdir(exist_ok=True)
    job.begin(place)
    before = size_of(place)
    if share is None:
        disk.read_only()
    else:
        disk.hold(before + 8192 + int(share * ROOM) if disk.mounted else int(share * ROOM))
    refusal = None
    try:
        job.work(place)
    except BaseException as error:
        if not is_disk_message(error):
            raise
        refusal = error
    disk.free()
    job.look(place)
    if refusal is None and share is None:
        raise Broken("the disk is read-only, but the job reported no error")
    job.work(place)
    job.done(place)


# The number of bytes that the largest of the jobs writes.
ROOM = 1_500_000

PART = Part(
    name="kills",
    cases=1000,
    what=(
        "SIGKILL at a random moment, or before a random access to files, while saving, merging, "
        "pre-training, searching and packaging; a full disk and a read-only one"
    ),
    holds=(
        "the old or the new state, never a mixture; the next start reaches the same result; nothing is left behind; "
        "errors say what is wrong with the disk"
    ),
    open=open_kills,
)
