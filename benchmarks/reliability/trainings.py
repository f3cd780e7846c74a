"""Trainings with checkpoints that are killed at any moment, also while a checkpoint or a pipeline is written."""

import contextlib
import io
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from spacy.tokens import DocBin

from spacy_lsbillm.training import CHECKPOINTS, Interval, TrainSettings, train

from .child import fresh
from .kills import Job, check_job, content, expect_clean, expect_names
from .part import Broken, Check, Part
from .small import examples, make_base, make_pipeline

STEPS, EVERY, EVALUATED = 9, 2, 3
RESULTS = ("model-best", "model-last")
SPACY_NER = {
    "@architectures": "spacy.TransitionBasedParser.v2",
    "state_type": "ner",
    "extra_state_tokens": False,
    "hidden_width": 8,
    "maxout_pieces": 2,
    "use_upper": False,
}


class ResumedTraining(Job):
    """`lsbillm train` with checkpoints; it is started with `--resume` if there is one.

    heads (tuple): Heads of `make_pipeline`, or ("ner", "textcat") for spaCy's.
    """

    def __init__(self, base: Path, work: Path, heads: tuple[str, ...]) -> None:
        self.name = f"train {'+'.join(heads)}"
        place = fresh(work)
        nlp = make_pipeline(base, tuple(head for head in heads if head != "ner"), unmask="all", unmask_warmup=4)
        if "ner" in heads:
            listener = nlp.get_pipe_config(heads[0])["model"]["tok2vec"]
            nlp.add_pipe("ner", config={"model": {**SPACY_NER, "tok2vec": listener}})
        DocBin(docs=[example.reference for example in examples(nlp)]).to_disk(place / "data.spacy")
        config = nlp.config.copy()
        for name in ("train", "dev"):
            config["corpora"][name] = {"@readers": "spacy.Corpus.v1", "path": str(place / "data.spacy")}
        config["training"] |= {"max_steps": STEPS, "eval_frequency": EVALUATED, "dropout": 0.2}
        config["training"]["batcher"]["size"] = 20
        config["training"]["optimizer"]["learn_rate"] = 0.01
        self._config = place / "config.cfg"
        config.to_disk(self._config)
        self._whole: dict[str, dict[str, str]] = {}

    def measure(self, place: Path) -> None:
        super().measure(place)
        self._whole = self._results(place)
        assert len(self._whole[RESULTS[0]]) > 5, "the undisturbed training left no pipeline"

    @staticmethod
    def _results(place: Path) -> dict[str, dict[str, str]]:
        return {name: content(place / "run" / name) for name in RESULTS}

    def begin(self, place: Path) -> None:
        """Nothing exists before."""

    def work(self, place: Path) -> None:
        output = place / "run"
        output.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {"checkpoint_every": Interval(steps=EVERY)}
        if any((output / CHECKPOINTS).glob("step-*")):
            settings = {"resume": True}
        with contextlib.redirect_stdout(io.StringIO()):
            train(TrainSettings(self._config, output, **settings))

    def look(self, place: Path) -> None:
        """Check nothing: until the next start, any state is allowed."""

    def done(self, place: Path) -> None:
        found = self._results(place)
        for name in RESULTS:
            differing = {file for file, _ in found[name].items() ^ self._whole[name].items()}
            if differing:
                raise Broken(f"{name} is not what it is without a stop: it differs in {sorted(differing)}")
        expect_clean(place, {"run"})
        expect_names(place / "run", {*RESULTS, CHECKPOINTS})
        expect_names(place / "run" / CHECKPOINTS, {f"step-{step:09d}" for step in (STEPS - EVERY, STEPS)})


@contextlib.contextmanager
def open_trainings(work: Path) -> Iterator[Check]:
    """Prepare the cases, see `Part.open`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    with contextlib.chdir(fresh(work)):
        base = make_base(work / "base_model")
        jobs: list[Job] = [
            ResumedTraining(base, work / "ours", ("sequence_labeler", "textcat")),
            ResumedTraining(base, work / "spacys", ("textcat", "ner")),
        ]
        for job in jobs:
            job.measure(work / "measure")
        yield partial(check_job, work, jobs)


PART = Part(
    name="trainings",
    cases=100,
    what=(
        "SIGKILL at a random moment, or before a random access to files, while `lsbillm train` with "
        "checkpoints trains our heads or spaCy's; a full disk and a read-only one"
    ),
    holds="the next start with --resume ends with the files of an undisturbed training, byte for byte",
    open=open_trainings,
)
