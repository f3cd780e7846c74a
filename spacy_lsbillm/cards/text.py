"""The text of a pipeline's model card. It says explicitly what is not known."""

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from ..backbone import COPY, INT8, MERGED, REFERENCE, plan_of
from ..pages import code, front_matter, plain, table
from .facts import CALIBRATION, TRAINING, Facts
from .picture import mask_picture
from .scores import Scored, hub_results, hub_tags, score_table, scored_on

TEMPLATE = "pipeline.md"
UNKNOWN = "not stated"
# The licence identifiers of hubs; any other text is "other" to them.
LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.\-]*")
STORED = {
    REFERENCE: "no; it is looked for where the pipeline is loaded",
    COPY: "yes, unchanged",
    MERGED: "yes, with the adapter folded in: it cannot be trained further",
    INT8: "yes, with the adapter folded in and weights in 8 bits: it cannot be trained further",
}
SCORES_INTRO = "From 0 to 1."
CHOSEN_BY = " Scores on the development set have chosen the checkpoint: expect less on new data."
NO_SCORES = f"Scores: {UNKNOWN}."
BASE_WANTED = (
    "The base is not in the pipeline. It is looked for under its name, as a folder and on the hub; the environment "
    "variable `SPACY_LSBILLM_BASES` may name a JSON file that says where it is."
)


def card_text(facts: Facts) -> str:
    """The whole card, except the line at its end that shows whether it was edited."""
    meta, scored = facts.meta, scored_on(facts)
    license, license_name = _license_for_hub(meta.get("license"))
    front = {
        "language": "multilingual" if meta.get("lang") == "xx" else meta.get("lang"),
        "license": license,
        "license_name": license_name,
        "library_name": "spacy",
        "tags": ["spacy", "spacy-lsbillm", *hub_tags(scored)],
        "base_model": [record["base"]["name"] for record in _records(facts) if record["base"]["commit"]],
        "model-index": [{"name": facts.name, "results": hub_results(scored)}] if scored else None,
    }
    parts = {
        "front": front_matter(front),
        "title": plain(facts.name),
        "summary": _summary(facts),
        "about": table(_about(facts)),
        "seeing": "\n\n".join(_seeing(facts)),
        "scores": "\n\n".join([*_scores(scored, bool(meta.get("performance"))), *_confidence(facts)]),
        "use": _use(facts),
        "labels": _labels(facts),
        "training": table(_training(facts)),
        # Markdown by spaCy's definition: `spacy package` puts it unchanged into its own cards.
        "notes": str(meta.get("notes") or ""),
    }
    template = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf8")
    # In one pass, as text from users may contain braces.
    text = re.sub(r"\{(\w+)\}", lambda place: parts[place[1]], template)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _records(facts: Facts) -> list[dict[str, Any]]:
    return [record for record in facts.records.values() if record]


def _license_for_hub(license: object) -> tuple[str | None, str | None]:
    """`license` and `license_name` for the front matter."""
    if not isinstance(license, str) or not license.strip():
        return None, None
    identifier = license.strip().lower()
    return (identifier, None) if LICENSE_ID.fullmatch(identifier) else ("other", license.strip())


def _summary(facts: Facts) -> str:
    names = ", ".join(code(name) for name in facts.components if name not in facts.records) or "no component"
    description = plain(facts.meta.get("description") or "")
    what = f"A spaCy pipeline: a bidirectional language model feeds {names}. Made with spacy-lsbillm."
    return f"{description}\n\n{what}" if description else what


def _about(facts: Facts) -> Iterable[tuple[str, str]]:
    meta = facts.meta
    yield "Version", plain(meta.get("version") or UNKNOWN)
    yield "Licence", plain(meta.get("license") or UNKNOWN)
    author = ", ".join(plain(meta[key]) for key in ("author", "email", "url") if meta.get(key))
    yield "Author", author or UNKNOWN
    for name, block in facts.components.items():
        if name in facts.records:
            yield from _about_base(name, block, facts.records[name])
    for source in facts.data_sources:
        known = [source["name"], *(source[key] for key in ("author", "url") if source.get(key))]
        yield "Source", f"{', '.join(map(plain, known))}; licence: {plain(source.get('license') or UNKNOWN)}"


def _about_base(name: str, block: dict[str, Any], record: dict[str, Any] | None) -> Iterable[tuple[str, str]]:
    what = f"Base of {code(name)}"
    if record is None:
        yield what, f"{code(block['model'].get('name'))}, which was never loaded: the pipeline is not initialised"
        return
    base = record["base"]
    commit = f", commit {code(base['commit'])} of the hub" if base.get("commit") else ""
    layers = f"the first {base['layers']} layers" if base["depth"] else f"{base['layers']} layers"
    yield what, f"{code(base['name'])}{commit}: {code(base['model_type'])}, {layers}, width {base['hidden_size']}"
    if base.get("made_with"):
        yield "It is made with", code(base["made_with"])
    yield "Its licence", plain(base.get("license") or UNKNOWN)
    yield "Its fingerprint", code(base["fingerprint"])
    yield "It is in the pipeline", STORED[record["store_base"]]
    yield "Number type", _number_type(record)
    lora = record["lora"]
    yield "Adapter", _adapter(lora) if lora else "none: the base is frozen"


def _number_type(record: dict[str, Any]) -> str:
    base = record["base"]
    # "auto" stood for a dtype, which pipelines of older versions do not record.
    dtype = (record.get("fitted") or {}).get("dtype") or base["dtype"]
    return f"{code(dtype)}, weights in {code(base['quantization'])}" if base["quantization"] else code(dtype)


def _adapter(lora: dict[str, Any]) -> str:
    targets = lora["target_modules"]
    shown = ", ".join(map(code, targets)) if isinstance(targets, list) else code(targets)
    kind = "".join(words for key, words in (("use_rslora", "rank-stabilised "), ("use_dora", "DoRA ")) if lora.get(key))
    return f"{kind}LoRA, r = {lora['r']}, alpha = {lora['alpha']:g}, dropout = {lora['dropout']:g}, on {shown}"


def _seeing(facts: Facts) -> Iterable[str]:
    for name, record in facts.records.items():
        if len(facts.records) > 1:
            yield f"### {code(name)}"
        if record is None:
            yield f"{UNKNOWN.capitalize()}: the pipeline is not initialised."
            continue
        plan = plan_of(record)
        share = f"{sum(plan.unmasked)} of {len(plan.unmasked)} layers see right"
        yield f"{share}: {plan.runs}. (`unmask` = {code(plan.notation)})"
        yield f"```\n{mask_picture(plan)}\n```"
        cutting = (record.get("fitted") or {}).get("cutting") or {}
        if cutting.get("repeat"):
            yield (
                f"The text stands {cutting['repeat'] + 1} times in a row and the last copy counts, so that causal "
                f"layers see all of it, too (`repeat` = {cutting['repeat']})."
            )
        if record["scalar_mix"]:
            yield f"The output is a learned mix of layers (`scalar_mix` = {code(record['scalar_mix'])})."
        if cutting.get("window"):
            shared = f", of which neighbours share at least {cutting['overlap']}" if cutting["overlap"] else ""
            yield f"Texts of more than {cutting['window']} word pieces go through windows of that length{shared}."


def _scores(scored: list[Scored], with_dev: bool) -> Iterable[str]:
    if scored:
        yield SCORES_INTRO + (CHOSEN_BY if with_dev else "")
        yield score_table(scored)
    else:
        yield NO_SCORES


def _confidence(facts: Facts) -> Iterable[str]:
    """The results of `calibrate`, head by head."""
    calibrations = facts.meta.get(CALIBRATION) or {}
    for name, block in facts.components.items():
        if name in calibrations:
            of_head = calibrations[name]
            yield (
                f"Confidence of {code(name)}: calibrated on {of_head['documents']:,} documents with "
                f"{_decisions(of_head)} ({plain(of_head['curve'])}). Expected calibration error "
                f"{of_head['ece_before']:.3f} before, {of_head['ece_after']:.3f} after, by curves fitted without the "
                f"documents they are measured on.{_promises(of_head)}"
            )
        elif block.get("factory") == "sequence_labeler":
            yield f"Confidence of {code(name)}: not calibrated. Its scores are the model's own."


def _decisions(of_head: dict[str, Any]) -> str:
    return f"{of_head['spans']:,} spans" if "spans" in of_head else f"{of_head['classes']:,} predicted classes"


def _promises(of_head: dict[str, Any]) -> str:
    parts = []
    if of_head.get("threshold") and "spans" in of_head:
        parts.append(f" Spans below a threshold of their label are left out ({len(of_head['threshold'])} labels).")
    if of_head.get("guarantee"):
        parts.append(f" Candidates with a guaranteed recall are in {code('doc.spans')} (see its `meta.json`).")
    return "".join(parts)


def _use(facts: Facts) -> str:
    record = next(iter(_records(facts)), None)
    version = record["versions"].get("spacy-lsbillm") if record else None
    lines = [
        "```",
        f"python -m pip install spacy-lsbillm{f'=={version}' if version else ''}",
        "```",
        "",
        "```python",
        "import spacy",
        "",
        "# The pipeline's folder, or the name of its package when that is installed.",
        f"nlp = spacy.load({_quoted(facts.name)})",
        'doc = nlp("Some text.")',
        *dict.fromkeys(_reading(facts)),
        "```",
    ]
    wanted = any(record["store_base"] == REFERENCE for record in _records(facts))
    return "\n".join([*lines, *(["", BASE_WANTED] if wanted else [])])


def _reading(facts: Facts) -> Iterable[str]:
    """Code that reads what the components write."""
    for block in facts.components.values():
        kind, key = block.get("factory"), block.get("spans_key")
        if kind in ("ner", "sequence_labeler") and not key:
            yield "print([(ent.text, ent.label_) for ent in doc.ents])"
        elif kind in ("sequence_labeler", "span_labeler", "spancat", "spancat_singlelabel", "span_finder") and key:
            yield f"print([(span.text, span.label_) for span in doc.spans[{_quoted(key)}]])"
        elif kind in ("textcat", "textcat_multilabel"):
            yield "print(doc.cats)"
        elif kind in ("tagger", "morphologizer", "parser"):
            yield "print([(token.text, token.tag_, token.pos_, token.dep_) for token in doc])"
        elif kind == "senter":
            yield "print([sentence.text for sentence in doc.sents])"


def _quoted(text: object) -> str:
    """A text as a Python string, in one line."""
    return json.dumps(str(text))


def _labels(facts: Facts) -> str:
    labels = {name: own_labels for name, own_labels in (facts.meta.get("labels") or {}).items() if own_labels}
    if not labels:
        return f"{UNKNOWN.capitalize()}."
    rows = [(code(name), ", ".join(map(code, own_labels))) for name, own_labels in labels.items()]
    count = sum(len(own_labels) for own_labels in labels.values())
    of = "label" if count == 1 else "labels"
    return f"<details>\n<summary>{count:,} {of}</summary>\n\n{table(rows, ('Component', 'Labels'))}\n\n</details>"


def _training(facts: Facts) -> Iterable[tuple[str, str]]:
    for name, what in (("train", "Training data"), ("dev", "Development data")):
        corpus = facts.corpus(name)
        yield what, code(corpus) if corpus else UNKNOWN
    if not facts.data_sources:
        yield "Where they are from, and their licence", UNKNOWN
    noted = facts.meta.get(TRAINING) or {}
    if facts.was_trained_by_config:
        training = facts.config["training"]
        yield "Seed", plain(training.get("seed"))
        limits = [("updates", training.get("max_steps")), ("passes over the data", training.get("max_epochs"))]
        yield "Length", " and ".join(f"at most {limit:,} {unit}" for unit, limit in limits if limit) or "no limit"
    else:
        yield "Seed", UNKNOWN
    yield "Device", plain(noted.get("device") or UNKNOWN)
    yield "Time", UNKNOWN if facts.seconds is None else _time(facts.seconds)
    yield "Versions", ", ".join(f"{name} {version}" for name, version in _versions(facts).items()) or UNKNOWN


def _time(seconds: float) -> str:
    shown = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    return f"{shown} until this was saved, since the training was begun or resumed"


def _versions(facts: Facts) -> dict[str, str]:
    noted = facts.meta.get(TRAINING) or {}
    versions = {name: version for record in _records(facts) for name, version in record["versions"].items()}
    return {**versions, **noted.get("versions", {})}
