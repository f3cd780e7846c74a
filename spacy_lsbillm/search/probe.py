"""A ranking of masks without tuning, by a linear model over the vectors of the frozen base.

The better it predicts the labels under a mask, the higher the mask ranks.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.util import filter_spans, minibatch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm import tqdm  # type: ignore[import-untyped]

from ..data.documents import tokens_alone
from ..errors import SettingError
from ..files import read_or_make
from ..layers import VectorBatch
from ..pipeline.billm_transformer import BiLLMTransformer
from ..pipeline.gold_spans import given_spans
from ..pipeline.gold_tags import span_tags
from ..tagging import Scheme, best_tags
from .experiment import Experiment, Reader
from .prediction import Prediction
from .significance import counts_for, f1
from .training import Training
from .ways import file_name

# How many documents of the training corpus are drawn; the development corpus is used whole.
DOCUMENTS = 2000
# How many documents of the training corpus are read to draw from.
READ = 100_000
# The weight of the squared coefficients relative to the mean cross-entropy, and the optimizer's iterations. Not tuned.
PENALTY, ROUNDS = 1e-3, 100
BATCH = 256
# The probability from which on a class counts, if classes do not exclude each other.
THRESHOLD = 0.5


@dataclass(frozen=True)
class Task:
    """What the linear model predicts.

    score (str): The score that counts: "ents_f", "spans_KEY_f" or "cats_micro_f".
    scheme (str): The tagging scheme, for spans.
    exclusive (bool): Whether each document has exactly one class.
    """

    score: str
    scheme: str = "biluo"
    exclusive: bool = True

    @property
    def spans_key(self) -> str | None:
        """The key of the spans, which are in `doc.spans[spans_key]`; None if they are in `doc.ents`."""
        return None if self.score == "ents_f" else self.score.removeprefix("spans_").removesuffix("_f")

    @property
    def is_classification(self) -> bool:
        """Whether the labels are classes of documents, rather than spans."""
        return self.score.startswith("cats_")


def task_of(experiment: Experiment) -> Task:
    """The task of a config, by the score with the highest weight.

    RAISES (SettingError): The probe cannot compute this score.
    """
    score = experiment.heaviest_score
    blocks = experiment.config.interpolate()["components"].values()
    factories = {block.get("factory"): block for block in blocks}
    if score.startswith("cats_"):
        return Task("cats_micro_f", exclusive="textcat_multilabel" not in factories)
    if score != "ents_f" and not (score.startswith("spans_") and score.endswith("_f")):
        raise SettingError(
            f"the probe handles only labelled spans and classes of documents (ents_f, spans_KEY_f, cats_…), but "
            f"{score!r} has the highest weight in training.score_weights. Use the predictor one-shot or first-steps."
        )
    return Task(score, factories.get("sequence_labeler", {}).get("scheme", Task.scheme))


def probe(experiment: Experiment, masks: Sequence[str], folder: Path, *, use_gpu: int = -1) -> Prediction:
    """Rank masks by how well a linear model predicts the labels from the base's token vectors under each mask.

    There is no adapter: a multinomial logistic regression is fitted on the training corpus and scored on the
    development corpus.

    Spans are predicted as tags of tokens, as by a `sequence_labeler`, and the best well-formed sequence counts; classes
    are predicted from the mean over a document's tokens. Documents and the start of the regression are the same for
    every mask, so there are no seeds.

    folder (Path): The folder for the results; masks with a result in it are not probed again.
    RETURNS (Prediction): The ranking, and how long it took.
    """
    task = task_of(experiment)
    place = folder / "predictions" / "probe"
    with tqdm(total=len(masks), desc="masks probed", unit=" masks") as bar:
        load = cache(partial(_load, experiment, task, use_gpu))

        def run(mask: str) -> dict[str, Any]:
            begun = time.monotonic()
            data = load()
            data.transformer.use_mask(mask)
            score = _score(task, data)
            bar.update()
            bar.set_postfix_str(f"{mask}: {score:.4f}")
            return {"score": score, "seconds": round(time.monotonic() - begun, 1)}

        results = read_or_make({place / f"{file_name(mask)}.json": partial(run, mask) for mask in masks})
    scores = {mask: result["score"] for mask, result in zip(masks, results, strict=True)}
    return Prediction("probe", scores, 0, sum(result["seconds"] for result in results))


@dataclass(frozen=True)
class Data:
    """The gold documents of both corpora, and the transformer that computes their vectors.

    train (list[Doc]), dev (list[Doc]): The documents that have tokens and annotation.
    labels (tuple[str, ...]): The labels of the training corpus.
    """

    transformer: BiLLMTransformer
    train: list[Doc]
    dev: list[Doc]
    labels: tuple[str, ...]


def _load(experiment: Experiment, task: Task, use_gpu: int) -> Data:
    config = experiment.config_of(Training("none", 0, experiment.steps))
    model = config["components"][experiment.component]["model"]
    model["lora"], model["output"] = None, "tokens"
    nlp: Language = init_nlp(config, use_gpu=use_gpu)
    transformer = nlp.get_pipe(experiment.component)
    assert isinstance(transformer, BiLLMTransformer)
    readers = experiment.corpora()
    train, dev = ([example.reference for example in reader(nlp)] for reader in _sampled_readers(readers))
    train, dev = ([doc for doc in docs if len(doc) and _is_annotated(doc, task)] for docs in (train, dev))
    labels = sorted({label for doc in train for label in _labels(doc, task)})
    for name, present in (("training", labels), ("development", dev)):
        if not present:
            raise SettingError(
                f"the {name} corpus has no labels that {task.score} would count. The probe needs labels in both "
                "corpora."
            )
    return Data(transformer, train, dev, tuple(labels))


def _sampled_readers(readers: Sequence[Reader]) -> list[Reader]:
    train, dev = readers

    def some(nlp: Language) -> list[Example]:
        # Drawn at random, since a corpus may be sorted by its labels.
        examples = list(islice(train(nlp), READ))
        chosen = np.random.default_rng(0).permutation(len(examples))[:DOCUMENTS]
        return [examples[i] for i in sorted(chosen.tolist())]

    return [some, dev]


def _is_annotated(doc: Doc, task: Task) -> bool:
    """Whether the document is annotated, so that a missing label means that there is none."""
    if task.is_classification:
        return any(doc.cats.values()) if task.exclusive else bool(doc.cats)
    return doc.has_annotation("ENT_IOB") if task.spans_key is None else task.spans_key in doc.spans


def _spans(doc: Doc, task: Task) -> list[Span]:
    # Of overlapping spans the longest is kept, since a token has one tag.
    return filter_spans(given_spans(doc, task.spans_key) or [])


def _labels(doc: Doc, task: Task) -> set[str]:
    return set(doc.cats) if task.is_classification else {span.label_ for span in _spans(doc, task)}


def _score(task: Task, data: Data) -> float:
    train, dev = (_vectors(data.transformer, docs) for docs in (data.train, data.dev))
    if task.is_classification:
        gold = np.array([[doc.cats.get(label, 0.0) for label in data.labels] for doc in data.train], dtype="f")
        targets = torch.from_numpy(gold.argmax(axis=1) if task.exclusive else gold)
        read = fit_regression(_means(train), targets, len(data.labels))
        predicted = _predict_classes(data, task, read(_means(dev)))
    else:
        scheme = Scheme(task.scheme, data.labels)
        tags = np.concatenate([_tags(doc, task, scheme) for doc in data.train])
        read = fit_regression(torch.cat(train), torch.from_numpy(tags), scheme.n_tags)
        predicted = _predict_spans(data, task, scheme, read(torch.cat(dev)).log_softmax(1).numpy())
    count = counts_for(task.score, None if task.exclusive else THRESHOLD)
    assert count is not None
    counts = [count(Example(guess, gold)) for guess, gold in zip(predicted, data.dev, strict=True)]
    return float(f1(np.sum(counts, axis=0)))


def _vectors(transformer: BiLLMTransformer, docs: Sequence[Doc]) -> list[Tensor]:
    """The vectors of each document's tokens, shape (tokens, width)."""
    vectors = []
    for batch in minibatch(docs, BATCH):
        output = transformer.model.predict(list(batch))
        assert isinstance(output, VectorBatch)
        arrays = [data.model_output.last_hidden_state[0] for data in output.doc_data]
        vectors += [torch.from_numpy(transformer.model.ops.to_numpy(array)) for array in arrays]
    return vectors


def _means(vectors: Sequence[Tensor]) -> Tensor:
    return torch.stack([rows.mean(dim=0) for rows in vectors])


def _tags(doc: Doc, task: Task, scheme: Scheme) -> np.ndarray:
    biluo = ["O"] * len(doc)
    for span in _spans(doc, task):
        biluo[span.start : span.end] = span_tags(len(span), span.label_)
    return np.array(scheme.numbers(biluo, {label: i for i, label in enumerate(scheme.labels)}))


def _predict_classes(data: Data, task: Task, logits: Tensor) -> list[Doc]:
    values = logits.softmax(1) if task.exclusive else logits.sigmoid()
    predicted = [tokens_alone(doc, doc.vocab) for doc in data.dev]
    for doc, row in zip(predicted, values.tolist(), strict=True):
        doc.cats = dict(zip(data.labels, row, strict=True))
    return predicted


def _predict_spans(data: Data, task: Task, scheme: Scheme, log_probs: np.ndarray) -> list[Doc]:
    predicted = [tokens_alone(doc, doc.vocab) for doc in data.dev]
    lengths = np.array([len(doc) for doc in predicted])
    tags = best_tags(log_probs, lengths, scheme)
    ends = np.cumsum(lengths)
    for doc, first, end in zip(predicted, ends - lengths, ends, strict=True):
        own = scheme.spans(tags[first:end], log_probs[np.arange(first, end), tags[first:end]])
        rows = zip(own.start.tolist(), own.end.tolist(), own.label.tolist(), strict=True)
        spans = [Span(doc, start, stop, label=scheme.labels[label]) for start, stop, label in rows]
        if task.spans_key is None:
            doc.set_ents(spans)
        else:
            doc.spans[task.spans_key] = spans
    return predicted


def fit_regression(vectors: Tensor, targets: Tensor, n_outputs: int) -> Callable[[Tensor], Tensor]:
    """Fit a logistic regression over standardised vectors with a penalty on its coefficients.

    L-BFGS starts from zero, so the result is the same each time.

    vectors (Tensor): The vectors, shape (rows, width).
    targets (Tensor): The class of each row, shape (rows,), or whether a row has each class, shape (rows, outputs).
    n_outputs (int): The number of classes.
    RETURNS (Callable): The fitted model: vectors to logits, shape (rows, outputs).
    """
    mean, scale = vectors.mean(dim=0), vectors.std(dim=0, correction=0).clamp_min(1e-6)
    inputs = (vectors - mean) / scale
    weight = torch.zeros(n_outputs, vectors.shape[1], requires_grad=True)
    bias = torch.zeros(n_outputs, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")
    loss_function = cross_entropy if targets.ndim == 1 else binary_cross_entropy_with_logits

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_function(inputs @ weight.T + bias, targets) + PENALTY / 2 * (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda rows: ((rows - mean) / scale @ weight.T + bias).detach()
