"""The list of slow tests, and how a report of pytest changes it."""

import pytest

from scripts.list_slow_tests import seconds_of_cases, update

pytestmark = pytest.mark.any_stack

REPORT = """<testsuites><testsuite>
<testcase classname="tests.data.test_a" name="test_one" time="0.7"/>
<testcase classname="tests.data.test_a" name="test_many[a]" time="0.2"/>
<testcase classname="tests.data.test_a" name="test_many[b]" time="0.2"/>
<testcase classname="tests.data.test_a" name="test_many[c]" time="0.2"/>
<testcase classname="tests.data.test_a" name="test_quick" time="2.1"><properties>
<property name="fixture" value="tests/data/test_a.py::model 0.8"/>
<property name="fixture" value="tests/data/test_a.py::corpus 0.2"/>
<property name="fixture" value="::tmp_path_factory 1.0"/>
</properties></testcase>
</testsuite></testsuites>"""


def test_each_function_keeps_the_cases_that_its_budget_allows(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    found = seconds_of_cases(tmp_path / "report.xml")
    one, many, quick = (f"tests/data/test_a.py::test_{name}" for name in ("one", "many", "quick"))
    # What a fixture takes is its own, and not that of the test that comes first.
    slow = {"tests/data/test_a.py::model": 0, many: 2, one: 0}
    assert update({}, found, 0.5) == slow
    # Entries that are not in the report stay; tests that have become fast are removed.
    assert update({"other": 3, quick: 0}, found, 0.5) == {"other": 3} | slow
    # A report of the fast part says nothing about the cases that it did not run.
    assert update({many: 3}, {many: [0.1] * 3}, 0.5) == {many: 3}
    assert update({many: 3}, {many: [0.2] * 3}, 0.5) == {many: 2}
