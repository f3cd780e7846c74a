"""An estimate of what a table costs, printed before it is computed."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.vocab import Vocab

from .models import Budget, Cell, Compared, layers_of, make_config
from .sets import SETS

# The cost of a document in training, in units of its prediction. The backward pass has no gradients of the base.
TRAINING = 2.5
# The number of documents that are predicted to measure the time per document.
PROBED = 32


def print_cost(cells: Sequence[Cell], paths: Mapping[str, dict[str, Path]], budget: Budget, with_test: bool) -> None:
    """Print the core-minutes per cell, by data set and model, and the total.

    cells (Sequence[Cell]): The cells that have no result yet.
    paths (Mapping): The paths of the splits of each data set.
    with_test (bool): Whether the cells are scored on the test set as well.
    """
    minutes: dict[tuple[str, str], list[float]] = defaultdict(list)
    seconds: dict[tuple[str, str | None, str | None], float] = {}
    written = [cell for cell in cells if cell.model.answer is not None]
    for cell in (one for one in cells if one.model.answer is None):
        model, splits = cell.model, paths[cell.set_name]
        key = cell.set_name, model.base, model.component
        if key not in seconds:
            seconds[key] = seconds_per_document(model, SETS[cell.set_name].kind, splits, budget)
        share = model.depth / layers_of(model.base) if model.base is not None and model.depth is not None else 1.0
        sizes = {split: len(DocBin().from_disk(path)) for split, path in splits.items()}
        share *= model.repeat + 1
        documents = TRAINING * sizes["train"] * budget.epochs + sizes["dev"] * (budget.epochs + 1)
        documents += sizes["test"] if with_test else 0
        minutes[cell.set_name, cell.model_name].append(seconds[key] * share * documents / 60)
    for (set_name, model_name), found in minutes.items():
        print(f"{set_name}, {model_name}: {len(found)} cells of about {found[0]:.1f} core-minutes")
    if written:
        print(f"{len(written)} cells of written answers: their cost depends on how much the model writes")
    if minutes:
        print(f"in all about {sum(map(sum, minutes.values())):.0f} core-minutes", flush=True)


def seconds_per_document(model: Compared, kind: str, splits: dict[str, Path], budget: Budget) -> float:
    """The processor time per development document in an untrained pipeline over all layers of a base."""
    corpora = {split: str(splits[split]) for split in ("train", "dev")}
    whole = Compared("", base=model.base, library=model.library, component=model.component)
    nlp = init_nlp(make_config(whole, kind, corpora, 1, budget, seed=0))
    texts = [doc.text for doc in list(DocBin().from_disk(splits["dev"]).get_docs(Vocab()))[:PROBED]]
    # The first call loads what is loaded lazily.
    list(nlp.pipe(texts))
    begun = time.process_time()
    list(nlp.pipe(texts))
    return (time.process_time() - begun) / len(texts)
