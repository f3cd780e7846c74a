"""The speed benchmark on a tiny base: it runs and prints its results. Speed itself is not tested."""

import numpy as np
import pytest
import torch

from benchmarks.record import read_result
from benchmarks.speed import corpora
from benchmarks.speed.__main__ import main
from benchmarks.speed.limit import blocks
from benchmarks.speed.turns import Contestant, by_turns, ratios


@pytest.mark.slow
@pytest.mark.any_stack
def test_everything_runs_on_a_tiny_base(make_base, tmp_path, capsys, monkeypatch):
    # Little of everything: no number is looked at.
    for name, value in (("limit.TRIED", 64), ("limit.TIMES", 1), ("pipelines.EXAMPLES", 16), ("pipelines.UPDATES", 2)):
        monkeypatch.setattr(f"benchmarks.speed.{name}", value)
    path = tmp_path / "result.json"
    sizes = ["--words", "30", "--document-words", "100", "--rounds", "1", "--batches", "2", "--threads", "1"]
    main(["--base", str(make_base()), "--corpora", "snips", *sizes, "--result", str(path)])
    found = read_result(path)
    assert {"versions", "machine", "commit", "cpu", "base", "settings"} <= set(found)
    measured = found["measured"]
    alone = measured["the transformer alone snips"]["rows"]
    assert list(alone) == ["the limit", "this project", "spacy-transformers", "padded loop"]
    assert alone["the limit"]["of_limit"]["median"] == 1
    assert {"tokenise", "align", "forward", "pool", "listen"} <= set(measured["stages snips"])
    assert len(measured["training, 2 texts per step snips"]["rows"]) == 3
    assert {"products of the base", "products of the adapter", "attention"} <= set(measured["operations snips"])
    assert measured["document"]["tokens"] >= 100
    printed = capsys.readouterr().out
    assert "| the limit |" in printed and "**One document of" in printed


def test_turns_and_ratios():
    order = []
    contestants = {name: Contestant(lambda given, name=name: order.append(name)) for name in "ab"}
    seconds = by_turns(contestants, 2, "cpu")
    assert order == ["a", "b"] * 3
    assert [len(taken) for taken in seconds.values()] == [2, 2]
    assert ratios([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]) == {"median": 1.0, "low": 0.5, "high": 2.0}


def test_mixed_documents_have_the_lengths_that_are_promised():
    corpus = corpora.mixed(20_000, None)
    lengths = [len(text.split()) for text in corpus.texts]
    assert min(lengths) >= 5 and max(lengths) <= 1500 and np.median(lengths) < 200
    assert corpus.words == sum(lengths)


def test_blocks_hold_each_piece_once():
    pieces = torch.arange(103)
    parts = blocks(pieces, 10, 30)
    assert torch.cat([part.flatten() for part in parts]).tolist() == pieces.tolist()
    assert all(part.shape[1] == 10 for part in parts[:-1])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--rounds", "0"], "--rounds 0 is not allowed"),
        (["--base", "nowhere"], "there is no base in nowhere"),
        (["--data", "nowhere"], "there is no nowhere"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_loaded(given, told):
    with pytest.raises(SystemExit, match=told):
        main(given)
