"""Scores for a card: a table for readers, and entries for a hub."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..pages import code, plain, table
from .facts import EVALUATIONS, Facts

# By the prefix of a score's name: what is scored, and the hubs' name of that task.
TASKS = {
    "ents_": ("Entities", "token-classification"),
    "spans_": ("Spans", "token-classification"),
    "span_finder_": ("Span boundaries", "token-classification"),
    "cats_": ("Classes", "text-classification"),
    "choice_": ("Choices", "multiple-choice"),
    "tag_": ("Tags", "token-classification"),
    "pos_": ("Parts of speech", "token-classification"),
    "morph_": ("Morphology", "token-classification"),
    "dep_": ("Dependencies", "token-classification"),
    "sents_": ("Sentences", "token-classification"),
}
# By its suffix: the measure in words, and the hubs' name of it.
MEASURES = {
    "_micro_f": ("micro F1", "f1"),
    "_macro_f": ("macro F1", "f1"),
    "_macro_auc": ("macro AUC", "roc_auc"),
    "_f": ("F1", "f1"),
    "_p": ("precision", "precision"),
    "_r": ("recall", "recall"),
    "_uas": ("unlabelled attachment", "accuracy"),
    "_las": ("labelled attachment", "accuracy"),
    "_acc": ("accuracy", "accuracy"),
    # The positive class's F1, macro F1 or macro AUC, depending on the number of classes.
    "cats_score": ("spaCy's summary", "cats_score"),
    "_ece": ("calibration error", "ece"),
}


class Scored(NamedTuple):
    """The scores on one corpus.

    data (str): The corpus, in words.
    scores (dict[str, float]): Scores by spaCy's names.
    """

    data: str
    scores: dict[str, float]


def scored_on(facts: Facts) -> list[Scored]:
    """The scores of a pipeline on each corpus: the development set of its training, and any that were added."""
    dev = facts.corpus("dev")
    all_scored = [Scored(f"development set{f' {dev}' if dev else ''}", numbers(facts.meta.get("performance")))]
    for entry in facts.meta.get(EVALUATIONS) or []:
        all_scored.append(Scored(str(entry["data"]), numbers(entry["scores"])))
    return [scored for scored in all_scored if scored.scores]


def numbers(scores: object) -> dict[str, float]:
    """The scores that a card shows, by spaCy's names: neither losses nor times."""
    if not isinstance(scores, Mapping):
        return {}
    known = {name: value for name, value in scores.items() if _task(name) and _measure(name)}
    return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}


def _task(name: str) -> tuple[str, str] | None:
    return next((task for start, task in TASKS.items() if name.startswith(start)), None)


def _measure(name: str) -> tuple[str, str] | None:
    return next((measure for end, measure in MEASURES.items() if name.endswith(end)), None)


def score_table(all_scored: list[Scored]) -> str:
    """A table with one row per score and one column per corpus."""
    names = list(dict.fromkeys(name for scored in all_scored for name in scored.scores))
    rows = []
    for name in names:
        values = (scored.scores.get(name) for scored in all_scored)
        shown = [f"{value:.4f}" if value is not None else "" for value in values]
        rows.append([_words(name), code(name), *shown])
    return table(rows, ["Score", "spaCy's name", *(plain(scored.data) for scored in all_scored)])


def _words(name: str) -> str:
    task, measure = _task(name), _measure(name)
    assert task is not None and measure is not None
    return f"{task[0]}, {measure[0]}"


def hub_results(all_scored: list[Scored]) -> list[dict[str, Any]]:
    """The entries of `model-index` in the front matter: one per corpus and task."""
    results = []
    for scored in all_scored:
        for task in dict.fromkeys(filter(None, map(_task, scored.scores))):
            of_task = {name: value for name, value in scored.scores.items() if _task(name) == task}
            results.append(
                {
                    "task": {"name": task[0], "type": task[1]},
                    "dataset": {"name": scored.data, "type": "local"},
                    "metrics": list(_hub_metrics(of_task)),
                }
            )
    return results


def _hub_metrics(scores: Mapping[str, float]) -> Iterable[dict[str, Any]]:
    for name, value in scores.items():
        measure = _measure(name)
        assert measure is not None
        yield {"name": name, "type": measure[1], "value": round(value, 4)}


def hub_tags(all_scored: list[Scored]) -> list[str]:
    """The hub's names of the scored tasks."""
    tasks = (_task(name) for scored in all_scored for name in scored.scores)
    return list(dict.fromkeys(task[1] for task in tasks if task))
