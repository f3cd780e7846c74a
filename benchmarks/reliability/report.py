"""The table of a campaign, printed and in the docs."""

from pathlib import Path

from .results import Results

BEGIN, END = "<!-- the table of python -m benchmarks.reliability -->", "<!-- end of the table -->"


def table(results: Results) -> str:
    """The table as Markdown: a row per part."""
    lines = ["| part | what is tried | cases | held | broken | core-minutes | what must hold |"]
    lines.append("|---|---|---|---|---|---|---|")
    for part in results.parts.values():
        broken = len(results.broken(part.name))
        cases = f"{part.count:,}" + (f" of {part.cases:,}" if part.count < part.cases else "")
        lines.append(
            f"| {part.name} | {part.what} | {cases} | {part.count - broken:,} | {broken:,} | {part.seconds / 60:.1f} | "
            f"{part.holds} |"
        )
    versions = results.begun.get("versions", {})
    shown = ", ".join(f"{name} {versions[name]}" for name in ("spacy", "transformers", "torch") if name in versions)
    return "\n".join(lines) + f"\n\nSeed {results.begun.get('seed')}; {shown}.\n"


def failures(results: Results) -> str:
    """The broken cases, one per line."""
    lines = []
    for part in results.parts:
        for one in results.broken(part):
            first = one.error.splitlines()[0] if one.error else ""
            lines.append(f"--part {one.part} --case {one.number}: {first[:300]}")
    return "\n".join(lines)


def write_table(results: Results, page: Path) -> None:
    """Put the table into a page, between its markers.

    RAISES (SystemExit): The page has no markers.
    """
    text = page.read_text(encoding="utf8") if page.is_file() else ""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{page} has no place for the table: it must hold the lines {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n\n{table(results)}\n{END}{after}", encoding="utf8")
