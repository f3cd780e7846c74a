"""A picture of which layers see right, made of characters: hubs do not show other pictures inside a card."""

from ..backbone import MaskPlan

RIGHT, LEFT = "⇄", "←"
MEANING = {
    True: "bidirectional: a word sees the words on both sides",
    False: "causal: a word sees the words before it",
}


def mask_picture(plan: MaskPlan) -> str:
    """Draw an arrow for each layer, with layers that attend alike in one line, and those next to the output on top."""
    most = max(count for _, count, _ in plan.grouped)
    longest = max(len(where) for where, _, _ in plan.grouped)
    lines = [
        f"  {(RIGHT if unmasked else LEFT) * count:<{most}}  {where:<{longest}}  {MEANING[unmasked]}"
        for where, count, unmasked in reversed(plan.grouped)
    ]
    return "\n".join(["output", *lines, "input"])
