"""The list of slow tests, and how a report of pytest changes it."""

import pytest

from scripts.list_slow_tests import seconds_of_cases, update

pytestmark = pytest.mark.any_stack

REPORT = """<testsuites><testsuite>
<testcase classname="tests.data.test_a" name="test_one" time="0.7"/>
<testcase classname="tests.data.test_a" name="test_many[a]" time="0.2"/>
<testcase classname="tests.data.test_a" name="test_many[b]" time="0.2"/>
<testcase classname="tests.data.test_a" name="test_many[c]" time="0.2"/>
<testcase classname="tests.data.test_a" name="test_quick" time="0.1"/>
</testsuite></testsuites>"""


def test_each_function_keeps_the_cases_that_its_budget_allows(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    found = seconds_of_cases(tmp_path / "report.xml")
    one, many, quick = (f"tests/data/test_a.py::test_{name}" for name in ("one", "many", "quick"))
    assert update({}, found, 0.5) == {many: 2, one: 0}
    # Entries that are not in the report stay; tests that have become fast are removed.
    assert update({"other": 3, quick: 0}, found, 0.5) == {"other": 3, many: 2, one: 0}
    # A report of the fast part says nothing about the cases that it did not run.
    assert update({many: 3}, {many: [0.1] * 3}, 0.5) == {many: 3}
    assert update({many: 3}, {many: [0.2] * 3}, 0.5) == {many: 2}
