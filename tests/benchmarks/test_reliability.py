"""The reliability campaign: a little of each part, and its runner."""

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.reliability import __main__ as command
from benchmarks.reliability import report, workers
from benchmarks.reliability.part import Broken, Part
from benchmarks.reliability.results import Results

pytestmark = [pytest.mark.slow, pytest.mark.any_stack, pytest.mark.usefixtures("fork_server")]

# The share of the cases of each part: less than a minute of processor time in total.
SHARES = {"documents": 0.002, "corruptions": 0.01, "kills": 0.003, "concurrency": 0.005, "settings": 0.005} | {
    "trainings": 0.01
}
# The file in which test parts log their calls, in a folder above that of the cases.
LOG = "log"


@pytest.mark.parametrize("name", command.PARTS)
def test_a_little_of_each_part_holds(name, tmp_path):
    results = tmp_path / "results.jsonl"
    status = command.main(["--parts", name, "--share", str(SHARES[name]), "--results", str(results)])
    assert status == 0, report.failures(Results(results))


@contextmanager
def opened(folder: Path):
    assert folder.is_dir()
    log = next(path / LOG for path in folder.parents if (path / LOG).exists())

    def check(number: int, draw: random.Random) -> None:
        with log.open("a", encoding="utf8") as file:
            file.write(f"{number} {draw.random()}\n")
        if number == 3:
            raise Broken("three")
        if number == 5:
            return {}["five"]
        if number == 7:
            time.sleep(600)
        if number == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 13:
            # Ignore the time limit.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(600)
        return None

    yield check


@contextmanager
def unable(folder: Path):
    raise OSError("no room")
    yield


BAD = [3, 5, 7, 11, 13]
PART = Part("small", 20, "numbers", "they are good", opened)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(*arguments, part=PART): the status, the results, and how often each case has run since the beginning."""
    log = tmp_path / LOG
    log.touch()
    monkeypatch.setattr(workers, "GRACE", 0.5)
    monkeypatch.setattr(workers, "PREPARATION", 20.0)

    def run(*arguments, part=PART):
        path = tmp_path / "results.jsonl"
        status = command.main(
            ["--results", str(path), "--work", str(tmp_path / "work"), "--time-limit", "0.5", *arguments],
            {part.name: part},
        )
        runs = Counter(int(line.split()[0]) for line in log.read_text(encoding="utf8").splitlines())
        return status, Results(path), runs

    return run


def test_whatever_breaks_a_case_is_told_and_the_others_run(run, capsys):
    status, results, runs = run("--jobs", "2")
    assert status == 1
    assert runs == Counter(range(20))
    found = {one.number: one for one in results.broken("small")}
    assert sorted(found) == BAD
    assert found[3].error == "Broken: three" and any("in check" in line for line in found[3].trace)
    assert found[5].error == "KeyError: 'five'"
    assert found[7].error == "TooLong: more than 0.5 seconds" and found[7].seconds >= 0.5
    assert "-9" in found[11].error and "did not heed" in found[13].error
    printed = capsys.readouterr().out
    assert "| small | numbers | 20 | 15 | 5 |" in printed and "--part small --case 11" in printed


def test_a_run_goes_on_and_a_larger_share_has_the_smaller_one(run):
    _, some, runs = run("--share", "0.3")
    assert some.parts["small"].count == sum(runs.values()) == 6
    status, more, again = run("--share", "0.6")
    assert more.parts["small"].count == 12 and set(runs) < set(again) and set(again.values()) == {1}
    assert status == int(bool(set(again) & set(BAD)))
    _, all_of_it, runs = run()
    assert runs == Counter(range(20)) and all_of_it.parts["small"].ranges == [[0, 20]]
    # One line for the circumstances, one for the part, one per broken case.
    assert len(all_of_it.path.read_text(encoding="utf8").splitlines()) == 2 + len(BAD)


def test_what_was_done_before_an_interrupt_is_kept(run, monkeypatch):
    def interrupt(text):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.tqdm, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run()

    monkeypatch.setattr(command.tqdm, "write", lambda text: None)
    _, results, runs = run()
    assert results.parts["small"].count == 20 and sorted(one.number for one in results.broken("small")) == BAD
    assert sum(runs.values()) <= 21


def test_those_that_broke_are_run_again(run):
    _, before, _ = run()
    mended = Part("small", 20, "numbers", "they are good", mended_open)
    status, results, _ = run("--again", part=mended)
    assert status == 0 and not results.failures
    assert results.parts["small"].count == before.parts["small"].count


@contextmanager
def mended_open(folder: Path):
    yield lambda number, draw: None


def test_a_part_that_cannot_begin_breaks_its_cases(run):
    status, results, _ = run(part=Part("small", 3, "", "", unable))
    assert status == 1
    assert [one.error for one in results.broken("small")] == ["OSError: no room"] * 3


def test_one_case_alone_draws_the_same(run, tmp_path, capsys):
    with pytest.raises(Broken, match="three"):
        run("--part", "small", "--case", "3")
    run("--part", "small", "--case", "4")
    assert "small 4 holds" in capsys.readouterr().out
    log = tmp_path / LOG
    alone = set(log.read_text(encoding="utf8").splitlines())
    run()
    assert len(alone & set(log.read_text(encoding="utf8").splitlines()[len(alone) :])) == 2


def test_results_of_another_seed_or_size_are_left_alone(run):
    run("--share", "0.1")
    with pytest.raises(SystemExit, match="is of seed 0, not 1"):
        run("--seed", "1")
    with pytest.raises(SystemExit, match="with 20 cases, there are 30 now"):
        run(part=Part("small", 30, "", "", opened))


@pytest.mark.parametrize(
    "arguments",
    [("--share", "0"), ("--share", "2"), ("--jobs", "0"), ("--case", "1"), ("--part", "small", "--case", "20")],
)
def test_arguments_out_of_range(run, arguments):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


def test_the_table_stands_between_its_markers(run, tmp_path, monkeypatch):
    run("--share", "0.1")
    page = tmp_path / "page.md"
    monkeypatch.setattr(command, "PAGE", page)
    page.write_text("# Page\n", encoding="utf8")
    with pytest.raises(SystemExit, match="has no place for the table"):
        run("--report")
    for _ in range(2):
        page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf8")
        assert run("--report")[0] == 0
    text = page.read_text(encoding="utf8")
    assert text.startswith("before\n") and text.endswith("after\n") and "\nold\n" not in text
    assert "| small | numbers | 2 of 20 |" in text


def test_the_table_in_the_docs_is_of_the_results():
    results = Results(command.RESULTS)
    assert results.begun, "there are no results"
    assert report.table(results) in command.PAGE.read_text(encoding="utf8")
    assert json.loads(command.RESULTS.read_text(encoding="utf8").splitlines()[0])["seed"] == results.begun["seed"]
