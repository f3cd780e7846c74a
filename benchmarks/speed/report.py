"""Results as tables in Markdown."""

from typing import Any


def table(corpus: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """Words per second, and the ratios to the first row, which is the limit.

    corpus (dict): "title", "words" and "documents".
    rows (dict): By name: "words_per_second", and "of_limit" with its median, lowest and highest value.
    """
    on_gpu = any("working_bytes" in row for row in rows.values())
    lines = [
        f"**{corpus['title']}** ({corpus['documents']:,} documents, {corpus['words']:,} words)",
        "",
        "| | words per second | of the limit | lowest to highest |" + " GPU memory besides weights |" * on_gpu,
        "|---|---|---|---|" + "---|" * on_gpu,
    ]
    for name, row in rows.items():
        of = row["of_limit"]
        spread = f"{of['low']:.2f} to {of['high']:.2f}"
        line = f"| {name} | {row['words_per_second']:,.0f} | {of['median']:.2f} | {spread} |"
        lines.append(line + (f" {row['working_bytes'] / 1e9:.2f} GB |" if on_gpu else ""))
    return "\n".join([*lines, ""])


def stage_table(title: str, seconds: dict[str, float]) -> str:
    """The shares of the time, the largest first."""
    total = sum(seconds.values())
    lines = [f"**{title}**", "", "| stage | seconds | share |", "|---|---|---|"]
    for name, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {taken:.3f} | {taken / total:.1%} |")
    return "\n".join([*lines, ""])


def document_table(found: dict[str, Any]) -> str:
    """A sentence about the long document."""
    extra = "an unknown size" if found["extra_bytes"] is None else f"{found['extra_bytes'] / 1e9:.2f} GB"
    return (
        f"**One document of {found['tokens']:,} tokens**: {found['tokens_per_second']:,.0f} tokens per second, "
        f"{found['ratio']:.2f} times the rate for documents of a thousand words; a peak of {extra} beyond the document "
        f"and its vectors ({found['vectors_bytes'] / 1e9:.2f} GB).\n"
    )
