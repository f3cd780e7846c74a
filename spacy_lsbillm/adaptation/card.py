"""The model card of an adapted base, or of an adapter for one."""

from typing import Any

from ..pages import front_matter, table
from .settings import ADAPTER, CAUSAL, MLM, MNTP

KINDS = {
    MNTP: "each masked piece predicted from the state before it",
    MLM: "each masked piece predicted from the state at its own position",
    CAUSAL: "each next piece predicted",
}

CARD = """---
{front}
---

# {name}

{kind}: {objective}.

{table}

`adaptation.json` holds all settings, the versions and the learning curve.
"""


def model_card(name: str, record: dict[str, Any], license: str | None) -> str:
    """The model card of an adapted base, from its record; the licences of the text must be added by hand.

    license (str | None): The base's licence.
    """
    settings, held_out = record["settings"]["adaptation"], record["held_out"]
    front = {
        "library_name": "peft" if record["output_kind"] == ADAPTER else "transformers",
        "base_model": record["base"]["name"],
        "license": license,
    }
    what = "An adapter for" if record["output_kind"] == ADAPTER else "Further training of"
    masked = (
        "" if settings["objective"] == CAUSAL else f", {settings['mask_share']:.0%} masked by {record['mask_piece']!r}"
    )
    rows = [
        ("Start", f"{record['base']['name']}, fingerprint {record['base']['fingerprint']}"),
        ("Layers", record["mask"]),
        ("Trained", f"{record['trained_parameters']:,} parameters ({settings['train']})"),
        ("Training", f"{record['tokens_seen']:,} pieces, objective {settings['objective']}{masked}"),
        ("Rate, seed", f"{settings['learn_rate']}, seed {settings['seed']}"),
        ("Merged", f"{record['merge']} of the adapted weights, {1 - record['merge']:g} of the start"),
        ("Held-out text", f"{held_out['before']:.3f} nats per predicted piece before, {held_out['after']:.3f} after"),
        ("Hardware and time", f"{record['hardware']}, {record['arithmetic']}, {record['seconds'] / 3600:.2f} hours"),
        ("Text", f"{', '.join(record['text'])}; held out {', '.join(record['valid']) or 'every 20th document'}"),
    ]
    return CARD.format(
        front=front_matter(front),
        name=name,
        kind=f"{what} the base `{record['base']['name']}`",
        objective=KINDS[settings["objective"]],
        table=table(rows),
    )
