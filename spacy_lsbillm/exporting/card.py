"""The model card of an exported head."""

from pathlib import Path
from typing import Any

from ..backbone.classifier import FIRST_VERSION, SUFFIXES, TOKENS
from ..pages import code, front_matter, plain, table
from ..tagging.scheme import OUTSIDE
from .plan import FIRST, LAST, MEAN

CARD = """---
{front}
---

# {name}

{what}

{table}

{scores}## Use

{needs}

```python
{code}
```

{reading}

{limits}
"""
NEEDS = (
    "Needs transformers {version} or newer, where `is_causal = false` in `config.json` removes the causal mask. "
    "Older versions silently read the folder and keep the mask: their results are worthless."
)
NEEDS_NOTHING = "The model is causal: any version of transformers with this class can be used."
CODE = {
    TOKENS: """from transformers import pipeline

tagger = pipeline("token-classification", model="FOLDER"{strategy})
tagger("…")""",
    "text": """from transformers import pipeline

classifier = pipeline("text-classification", model="FOLDER", top_k=None)
classifier("…")""",
}
READING = {
    MEAN: "The scores of a token are the means of the `logits` of its pieces, as in the pipeline; "
    '`aggregation_strategy="average"` averages probabilities and defines tokens differently, so that its results '
    "differ occasionally.",
    FIRST: "The scores of a token are the `logits` of its first piece.",
    LAST: "The scores of a token are the `logits` of its last piece.",
}
STRATEGY = {MEAN: ', aggregation_strategy="average"', FIRST: ', aggregation_strategy="first"', LAST: ""}
NO_VITERBI = (
    " From them the pipeline chooses the best well-formed tag sequence of a document; this search, the probabilities "
    "of spans, calibration and thresholds are not part of this folder."
)
NO_CALIBRATION = "Scores are those of the pipeline without its calibration, which is not part of this folder."
LIMITS = (
    "Texts are used as they are. The pipeline shows white space to its tokenizer as `{white_space}`: if a text has "
    "more than single blanks between its words, convert it to that form first. The pipeline cuts longer texts into "
    "windows of {window} pieces, of which neighbours share {overlap}; here that is `tokenizer.model_max_length`, "
    "beyond which texts are truncated{stride}."
)


def model_card(record: dict[str, Any], license: str | None, performance: dict[str, Any]) -> str:
    """The model card of an exported head.

    record (dict): The content of `export.json`.
    license (str | None): The base's licence.
    performance (dict): The scores in the pipeline's meta.
    """
    pipeline, task, base = record["pipeline"], record["task"], called(record["base"]["name"])
    tokens = task == TOKENS
    name = f"{pipeline['lang']}_{pipeline['name']}"
    front = {
        "library_name": "transformers",
        "pipeline_tag": task,
        "base_model": base,
        "language": pipeline["lang"] if pipeline["lang"] != "xx" else None,
        "license": license,
    }
    checked = record["checked"]
    rows = [
        ("Base", f"{code(base)}, fingerprint {record['base']['fingerprint']}"),
        ("License of the base", plain(license or "not stated")),
        ("From", f"component `{record['component']}` of the spaCy pipeline {name} {pipeline['version']}"),
        ("Layers", f"{record['layers']}, {record['mask']}"),
        ("Labels", _labels(record["labels"], tokens)),
        (
            "Compared with the pipeline",
            "not yet: this needs a newer transformers"
            if checked is None
            else f"{checked['texts']} texts, scores differ by {checked['largest_difference']:.1g} of the largest",
        ),
        ("Made with", ", ".join(f"{package} {version}" for package, version in record["versions"].items())),
    ]
    numbers = {key: x for key, x in performance.items() if isinstance(x, float) and not key.endswith("_loss")}
    scores = "".join(f"| {key} | {value:.4f} |\n" for key, value in sorted(numbers.items()))
    reading = READING[record["read_as"]] + NO_VITERBI if tokens else NO_CALIBRATION
    version = ".".join(map(str, FIRST_VERSION))
    return CARD.format(
        front=front_matter(front),
        name=name,
        what=f"`…{SUFFIXES[task]}` with one linear layer over a decoder, trained with spacy-lsbillm.",
        table=table(rows),
        scores=f"Scores of the spaCy pipeline when it was trained:\n\n| | |\n|---|---|\n{scores}\n" if scores else "",
        needs=NEEDS.format(version=version) if record["both_ways"] else NEEDS_NOTHING,
        code=CODE[TOKENS if tokens else "text"].format(strategy=STRATEGY[record["read_as"]]),
        reading=reading,
        limits=LIMITS.format(
            white_space=record["white_space"],
            window=record["window"],
            overlap=record["overlap"],
            stride=f", unless `pipeline` gets `stride={record['overlap']}`" if tokens else "",
        ),
    )


def _labels(labels: list[str], tokens: bool) -> str:
    """The labels, each once; for tags, without their kinds."""
    if not tokens:
        return ", ".join(map(code, labels))
    tags = [label.partition("-") for label in labels if label != OUTSIDE]
    kinds = ", ".join(dict.fromkeys(f"`{kind}-`" for kind, _, _ in tags))
    return f"{', '.join(dict.fromkeys(code(label) for _, _, label in tags))}; each with {kinds}, and `{OUTSIDE}`"


def called(name: str) -> str:
    """The public name of a base: for a folder on this machine, only the last part of its path."""
    return Path(name).name if Path(name).is_absolute() else name
