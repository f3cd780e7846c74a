"""List in tests/slow.txt the tests that are too slow for the fast part, from a report of pytest.

    python -m pytest -n 2 --junitxml=report.xml
    python scripts/list_slow_tests.py report.xml

Each test function has a budget. Its first cases are fast as long as they stay within it together, and the others are
slow. What a fixture of a file or of the session takes is not counted for the test that happens to come first: where it
is more than the budget, the fixture is listed, with 0, and all tests of its file that use it are slow. Functions that
are missing in the report keep their entries, so a report of the fast part alone corrects the list. Functions that no
longer exist are removed.

Make the report on a machine that does nothing else.
"""

import argparse
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[1]
LIST = REPOSITORY / "tests" / "slow.txt"
HEADER = (
    "# Test functions, with how many of their first cases are fast, and fixtures whose tests are slow. Written by\n"
    "# scripts/list_slow_tests.py."
)


def read(path: Path) -> dict[str, int]:
    """Read the list.

    RETURNS (dict[str, int]): For each function, the number of its first cases that are fast.
    """
    if not path.exists():
        return {}
    lines = [line.split() for line in path.read_text(encoding="utf8").splitlines() if not line.startswith("#")]
    return {function: int(number) for function, number in lines}


def seconds_of_cases(report: Path) -> dict[str, list[float]]:
    """The seconds of each case without fixtures that several tests share, and those of these fixtures, by function."""
    found: dict[str, list[float]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        file = f"{case.attrib['classname'].replace('.', '/')}.py"
        seconds = float(case.attrib["time"])
        for fixture in case.iterfind("properties/property[@name='fixture']"):
            name, taken = fixture.attrib["value"].rsplit(" ", 1)
            seconds -= float(taken)
            # Those of other files are used everywhere.
            if name.startswith(f"{file}::"):
                found.setdefault(name, []).append(float(taken))
        found.setdefault(f"{file}::{case.attrib['name'].partition('[')[0]}", []).append(max(seconds, 0.0))
    return found


def fast_cases(seconds: list[float], budget: float) -> int:
    """How many of the first cases stay within the budget together."""
    spent = 0.0
    for number, taken in enumerate(seconds):
        spent += taken
        if spent > budget:
            return number
    return len(seconds)


def update(before: dict[str, int], found: dict[str, list[float]], budget: float) -> dict[str, int]:
    """The list after a report.

    A function keeps its entry if the report has no more of its cases than were fast, because the report then says
    nothing about the other cases.
    """
    after = dict(before)
    for function, seconds in found.items():
        number = fast_cases(seconds, budget)
        if number < len(seconds):
            after[function] = number
        elif len(seconds) > before.get(function, 0):
            after.pop(function, None)
    return dict(sorted(after.items()))


def exists(function: str) -> bool:
    """Whether a test function still exists."""
    path, _, name = function.partition("::")
    return (REPOSITORY / path).is_file() and f"def {name}(" in (REPOSITORY / path).read_text(encoding="utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="the report of pytest --junitxml")
    parser.add_argument("--seconds", type=float, default=0.4, help="the budget of a test function")
    args = parser.parse_args()
    after = update(read(LIST), seconds_of_cases(args.report), args.seconds)
    lines = [f"{function} {number}" for function, number in after.items() if exists(function)]
    LIST.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf8")
    print(f"{LIST}: {len(lines)} functions")


if __name__ == "__main__":
    main()
