"""The model card of a pre-trained base."""

from typing import Any

from ..pages import front_matter, table

KINDS = {
    "clm": "A LLaMA-architecture causal language model",
    "mlm": 'An encoder: a LLaMA-architecture masked language model without a causal mask, for `unmask = "all"`',
}

CARD = """---
{front}
---

# {name}

{kind}.

{table}

`pretraining.json` holds all settings, the versions and the learning curve.
"""


def model_card(name: str, record: dict[str, Any]) -> str:
    """Write the card of a model from the record of its training.

    The licences of the text are not known, and have to be added by hand.
    """
    shape, train = record["settings"]["model"], record["settings"]["training"]
    held_out = record["held_out"]
    if "bits_per_byte" in held_out:
        random = held_out["random_weights_bits_per_byte"]
        result = f"{held_out['bits_per_byte']:.3f} bits per byte (random weights: {random:.3f})"
    else:
        result = f"{held_out['nats_per_hidden_token']:.3f} nats per hidden token, {train['mask_rate']:.0%} hidden"
    hours = record["seconds"] / 3600
    rows = [
        (
            "Shape",
            f"{shape['layers']} layers, width {shape['width']}, {shape['heads']} heads, feed-forward "
            f"{shape['feed_forward']}, tied embeddings, {shape['positions']} positions",
        ),
        ("Parameters", f"{record['parameters']:,}, stored in bfloat16"),
        ("Pre-training", f"{record['tokens_seen']:,} tokens, objective {train['objective']}, seed {train['seed']}"),
        ("Hardware and time", f"{record['hardware']}, {record['arithmetic']}, {hours:.2f} hours"),
        ("Held-out text", result),
        ("Text", f"trained on {', '.join(record['text'])}; held out {', '.join(record['valid'])}"),
    ]
    front = front_matter({"library_name": "transformers"})
    return CARD.format(front=front, name=name, kind=KINDS[train["objective"]], table=table(rows))
