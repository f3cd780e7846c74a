"""List in tests/slow.txt what takes too long for the fast part of the tests, from a report of pytest.

    python -m pytest -n 2 --junitxml=report.xml
    python scripts/list_slow_tests.py report.xml

Each test function has a budget. Its cases are fast, in their order, until they have spent it, and the others are slow.
Functions that the report does not have stay listed as they are, so that a report of the fast part alone corrects it;
those that are no longer there do not.
"""

import argparse
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[1]
LIST = REPOSITORY / "tests" / "slow.txt"
HEADER = "# Test functions, with how many of their first cases are fast. Written by scripts/list_slow_tests.py."


def read(path: Path) -> dict[str, int]:
    """What is listed. RETURNS (dict[str, int]): By function, how many of its cases are fast."""
    if not path.exists():
        return {}
    lines = [line.split() for line in path.read_text(encoding="utf8").splitlines() if not line.startswith("#")]
    return {function: int(number) for function, number in lines}


def measured(report: Path) -> dict[str, list[float]]:
    """Seconds of each case, with what was made for it, by function."""
    found: dict[str, list[float]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        function = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name'].partition('[')[0]}"
        found.setdefault(function, []).append(float(case.attrib["time"]))
    return found


def fast_cases(seconds: list[float], budget: float) -> int:
    """How many of the first cases together stay within the budget."""
    spent = 0.0
    for number, taken in enumerate(seconds):
        spent += taken
        if spent > budget:
            return number
    return len(seconds)


def listed(before: dict[str, int], found: dict[str, list[float]], budget: float) -> dict[str, int]:
    """What is to be listed after a report. A function of which the report has no more cases than were fast stays
    listed, as nothing is known of the others."""
    after = dict(before)
    for function, seconds in found.items():
        number = fast_cases(seconds, budget)
        if number < len(seconds):
            after[function] = number
        elif len(seconds) > before.get(function, 0):
            after.pop(function, None)
    return dict(sorted(after.items()))


def exists(function: str) -> bool:
    """Whether there is still such a test function."""
    path, _, name = function.partition("::")
    return (REPOSITORY / path).is_file() and f"def {name}(" in (REPOSITORY / path).read_text(encoding="utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="what pytest --junitxml has written")
    parser.add_argument("--seconds", type=float, default=0.5, help="the budget of a test function")
    args = parser.parse_args()
    after = listed(read(LIST), measured(args.report), args.seconds)
    lines = [f"{function} {number}" for function, number in after.items() if exists(function)]
    LIST.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf8")
    print(f"{LIST}: {len(lines)} functions")


if __name__ == "__main__":
    main()
