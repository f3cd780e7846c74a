"""The page at /: a form, and the annotation of its text. It has no scripts and loads nothing."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from spacy.displacy.render import EntityRenderer

from ..pages import as_page
from .refusal import BAD_JSON, Refused
from .served import Served

HEADERS = {
    # Whatever a text contains, the browser runs and loads nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Texts are private to their sender.
    "Cache-Control": "no-store",
}
FIELDS = ("text", "pipeline", "mask")
MASKS = ("all", "none", "bits:01", "bits:0011", "from:4")
# Light enough for black text on them, and distinguishable with colour blindness (Okabe and Ito, lightened).
COLOURS = ("#a6d4f2", "#f9d38c", "#8fd9c1", "#f3b7a4", "#e9c6dc", "#f5ef9f", "#c3cbe8", "#d9d9d9")
# The number of classes shown.
MOST_CLASSES = 12
ENTITY = (
    '<mark class="entity" style="background: {bg}">{text} <span class="label">{label}{kb_link}</span>'
    '<span class="score">{score}</span></mark>'
)
STYLE = """
form { display: grid; gap: 0.6rem; }
textarea, select, input, button { font: inherit; padding: 0.4rem; border: 1px solid #888; border-radius: 0.3rem;
  box-sizing: border-box; max-width: 100%; }
textarea { width: 100%; min-height: 8rem; resize: vertical; }
.row { display: flex; flex-wrap: wrap; gap: 0.6rem 1rem; align-items: end; }
.row label { display: grid; gap: 0.1rem; font-size: 0.85rem; min-width: 0; }
button { background: #0072B2; border-color: #0072B2; color: white; padding: 0.4rem 1.2rem; cursor: pointer; }
.error { background: #fbe3d6; border-left: 4px solid #D55E00; padding: 0.5rem 1rem; overflow-wrap: anywhere; }
.note { color: #555; font-size: 0.85rem; overflow-wrap: anywhere; }
.entities { line-height: 2.4 !important; overflow-wrap: anywhere; }
.entity { padding: 0.25em 0.4em; border-radius: 0.35em; color: inherit;
  box-decoration-break: clone; -webkit-box-decoration-break: clone; }
.label { font-size: 0.75em; font-weight: bold; }
.score { font-size: 0.75em; margin-left: 0.4em; }
.wide { overflow-x: auto; }
td.bar { min-width: 6rem; width: 40%; }
td.bar div { background: #0072B2; height: 0.7rem; }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
td { overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Form:
    """The values of the form.

    text (str), pipeline (str | None), mask (str): As they were sent.
    """

    text: str = ""
    pipeline: str | None = None
    mask: str = ""


def read_form(body: bytes) -> Form:
    """Read the form.

    RAISES (Refused): The body is not a form.
    """
    try:
        fields = parse_qs(body.decode("utf8"), keep_blank_values=True, max_num_fields=len(FIELDS), errors="strict")
    except ValueError as error:
        raise Refused(BAD_JSON, f"this is not what the form sends: {error}") from error
    text, pipeline, mask = (fields.get(name, [""])[0] for name in FIELDS)
    # Browsers send line ends as two characters each.
    return Form(text.replace("\r\n", "\n"), pipeline or None, mask.strip())


def page(
    pipelines: Sequence[Served],
    form: Form,
    *,
    record: Mapping[str, Any] | None = None,
    error: str | None = None,
    seconds: float = 0.0,
) -> str:
    """Render the whole page.

    form (Form): The form's values, which are shown again.
    record (Mapping | None): The annotation of its text.
    error (str | None): The error, if there is no annotation.
    seconds (float): The duration of the annotation.
    """
    parts = ["<h1>Annotate a text</h1>", *_form(pipelines, form)]
    if error is not None:
        parts.append(f'<p class="error" role="alert">{html.escape(error)}</p>')
    if record is not None:
        served = next((one for one in pipelines if one.name == form.pipeline), pipelines[0])
        parts += _result(served, record, seconds)
    return as_page("spacy-lsbillm", parts, STYLE)


def _form(pipelines: Sequence[Served], form: Form) -> Iterator[str]:
    yield '<form method="post" action="/" accept-charset="utf-8">'
    # A line end directly after the tag is not part of the text: so a text that begins with a line end keeps it.
    yield (
        '<label for="text">Text</label>\n<textarea id="text" name="text" required autofocus dir="auto" '
        f'placeholder="Paste a text">\n{html.escape(form.text)}</textarea>'
    )
    yield '<div class="row">'
    yield '<label>Pipeline <select name="pipeline">'
    for served in pipelines:
        name, chosen = html.escape(served.name), " selected" if served.name == form.pipeline else ""
        yield f'<option value="{name}"{chosen}>{name}</option>'
    yield "</select></label>"
    if any(served.masks for served in pipelines):
        yield (
            '<label>Unmasked layers <input name="mask" list="masks" size="18" placeholder="as trained" '
            f'value="{html.escape(form.mask)}"></label><datalist id="masks">'
        )
        yield "".join(f'<option value="{mask}">' for mask in MASKS) + "</datalist>"
    yield "<button>Annotate</button></div></form>"


def _result(served: Served, record: Mapping[str, Any], seconds: float) -> Iterator[str]:
    if "error" in record:
        yield f'<p class="error" role="alert">{html.escape(record["error"])}</p>'
        return
    yield "<h2>Entities</h2>"
    colours = dict(zip(served.labels, COLOURS * (len(served.labels) // len(COLOURS) + 1), strict=False))
    yield _entities(record["text"], record["ents"], colours)
    if not record["ents"]:
        yield '<p class="note">None were found.</p>'
    if record["cats"]:
        yield "<h2>Classes</h2>"
        yield from _classes(record["cats"])
    for key, spans in record["spans"].items():
        yield f"<h2>Spans: {html.escape(key)}</h2>"
        yield from _spans(record["text"], spans)
    masks = "; ".join(f"{name}: {words}" for name, words in served.masks.items())
    trained = f" As trained: {html.escape(masks)}." if masks else ""
    yield f'<p class="note">{seconds * 1000:,.0f} ms with {html.escape(served.name)}.{trained}</p>'
    shown = html.escape(json.dumps(record, ensure_ascii=False, indent=1))
    yield f"<details><summary>As JSON</summary><pre>{shown}</pre></details>"


def _entities(text: str, ents: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    renderer = EntityRenderer({"colors": dict(colours), "template": ENTITY})
    # displaCy looks up colours by the label as it is shown.
    renderer.colors |= {html.escape(label).upper(): colour for label, colour in colours.items()}
    spans = [
        {
            "start": ent["start"],
            "end": ent["end"],
            "label": html.escape(ent["label"]),
            "params": {"score": "" if ent["score"] is None else f"{ent['score']:.2f}"},
        }
        for ent in ents
    ]
    return renderer.render_ents(text, spans, None)


def _classes(cats: Mapping[str, float]) -> Iterator[str]:
    ordered = sorted(cats.items(), key=lambda one: -one[1])
    yield '<div class="wide"><table>'
    for name, score in ordered[:MOST_CLASSES]:
        width = 100 * min(max(score, 0), 1)
        yield (
            f'<tr><td>{html.escape(name)}</td><td class="number">{score:.3f}</td>'
            f'<td class="bar"><div style="width: {width:.1f}%"></div></td></tr>'
        )
    yield "</table></div>"
    if len(ordered) > MOST_CLASSES:
        least = ordered[MOST_CLASSES - 1][1]
        yield f'<p class="note">and {len(ordered) - MOST_CLASSES} more, none above {least:.3f}</p>'


def _spans(text: str, spans: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not spans:
        yield '<p class="note">None were found.</p>'
        return
    yield '<div class="wide"><table><tr><th>text</th><th>label</th><th>score</th></tr>'
    for span in sorted(spans, key=lambda one: (one["start"], -one["end"])):
        score = "" if span["score"] is None else f"{span['score']:.3f}"
        yield (
            f"<tr><td>{html.escape(text[span['start'] : span['end']])}</td><td>{html.escape(span['label'])}</td>"
            f'<td class="number">{score}</td></tr>'
        )
    yield "</table></div>"
