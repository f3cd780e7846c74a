"""The pipelines that are compared, ready to run."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.training import Example
from spacy.util import load_model_from_config
from thinc.api import Config

from spacy_lsbillm.data.documents import labels_of, make_doc
from spacy_lsbillm.data.records import Record, read_iob, read_jsonl
from spacy_lsbillm.layers import backbone_shim
from spacy_lsbillm.training.config import training_config

from .bases import Precision, wake
from .corpora import SNIPS

EXAMPLES = 64
# Updates of the heads on the examples; they then find about as many spans in other requests as there are.
UPDATES, LEARN_RATE = 15, 0.005


def ours(
    base: Path, components: Sequence[str], precision: Precision, pooling: str | None = None, dropout: float = 0.0
) -> Language:
    """A pipeline over a base with an adapter that has an effect.

    components (Sequence[str]): The listening components; none for the transformer alone.
    """
    lora = {"r": 16, "alpha": 32, "dropout": dropout, "target_modules": "all-linear"}
    # For users, each pipeline is alone in its process, and its adapter is folded. Here several share a base.
    fold = "auto" if precision.quantization else "always"
    settings = {"lora": lora, "fold_adapter": fold, **asdict(precision)}
    if not components:
        nlp = spacy.blank("en")
        model = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(base), **settings}
        nlp.add_pipe("billm_transformer", name="transformer", config={"model": model})
    else:
        nlp = _built(training_config(str(base), pipeline=components, pooling=pooling, **settings))
    return _ready(nlp, ours=True)


def spacy_transformers(folder: Path, components: Sequence[str]) -> Language:
    """The same pipeline over a plain model in spacy-transformers, with its default settings.

    folder (Path): A folder from `bases.merge`.
    """
    model = {"@architectures": "spacy-transformers.TransformerModel.v3", "name": str(folder)}
    if not components:
        nlp = spacy.blank("en")
        nlp.add_pipe("transformer", config={"model": model})
    else:
        config = training_config(str(folder), pipeline=components)
        config["components"]["transformer"] = {"factory": "transformer", "model": model}
        nlp = _built(config)
    return _ready(nlp, ours=False)


def requests() -> list[tuple[Record, Record]]:
    """Some requests with their slots and their intents."""
    slots, intents = read_iob(SNIPS / "dev.iob"), read_jsonl(SNIPS / "dev.jsonl")
    every = list(zip(slots, intents, strict=True))
    # The requests are sorted by intent.
    return every[:: len(every) // EXAMPLES]


def examples(nlp: Language) -> list[Example]:
    """Some requests with slots and intents as examples, to initialise the heads."""
    chosen = requests()
    labels = labels_of(intent for _, intent in chosen)
    found = []
    for slots, intent in chosen:
        doc = make_doc(nlp, slots, labels)
        doc.cats = labels.cats([intent.content["label"]])
        found.append(Example(nlp.make_doc(doc.text), doc))
    return found


def _built(config: Config) -> Language:
    config["initialize"]["vectors"] = None
    return load_model_from_config(config, auto_fill=True)


def _ready(nlp: Language, ours: bool) -> Language:
    sample = examples(nlp)
    nlp.initialize(lambda: sample)
    if ours:
        wake(backbone_shim(nlp.get_pipe("transformer").model).backbone)
    if len(nlp.pipe_names) > 1:
        # Untrained heads find nothing, and are therefore faster than trained ones.
        optimizer: Any = nlp.resume_training()
        optimizer.learn_rate = LEARN_RATE
        for _ in range(UPDATES):
            nlp.update(sample, sgd=optimizer)
    return nlp
