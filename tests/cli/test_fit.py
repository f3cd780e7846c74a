"""`python -m spacy lsbillm fit`."""

import json
import re

import pytest
from typer.testing import CliRunner

from spacy_lsbillm.backbone import pace
from spacy_lsbillm.cli import app
from spacy_lsbillm.training.fit import largest_that_fits

pytestmark = pytest.mark.any_stack


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """The speed that is measured does not matter here."""
    monkeypatch.setattr(pace, "SECONDS", 0.01)
    monkeypatch.setattr(pace, "WARM_UP", 0.0)


def fit(*arguments):
    result = CliRunner().invoke(app, ["fit", *map(str, arguments), "--device", "cpu"])
    return result.exit_code, " ".join(re.sub(r"\x1b\[[0-9;]*m", "", result.output).split())


@pytest.fixture(scope="module")
def base(make_base):
    return make_base("llama", hidden_size=64, intermediate_size=160)


def test_it_compares_settings_with_the_free_memory(base):
    code, output = fit(base, "--examples", 1000)
    assert code == 0
    assert "4 layers, width 64" in output
    assert "free (CPU)" in output
    rows = re.findall(r"(float32|bfloat16) (none|nf4) (yes|no)", output)
    assert len(rows) == len(set(rows)) == 6
    assert 'Training fits with dtype = "float32"' in output
    assert "1,000 documents of 20 pieces, 3 times" in output
    assert "These are estimates" in output


def test_what_is_given_is_not_varied(base):
    chosen = ("--dtype", "bfloat16", "--quantization", "none", "--no-gradient-checkpointing", "--depth", 2)
    code, output = fit(base, *chosen, "--memory", 64)
    assert code == 0
    assert re.findall(r"(float32|bfloat16) (none|nf4) (yes|no)", output) == [("bfloat16", "none", "no")]
    assert 'Training fits with dtype = "bfloat16", depth = 2' in output


def test_if_nothing_fits_it_says_what_to_change(base, tmp_path):
    path = tmp_path / "fit.json"
    code, output = fit(base, "--memory", 0.01, "--batch-pieces", 4096, "--dtype", "float32", "--json", path)
    assert code == 1
    assert "No training fits" in output
    found = json.loads(path.read_text(encoding="utf8"))
    assert not any(one["fits"]["training"] for one in found["estimates"])
    assert found["changes"][-1] == "A smaller base"
    pieces = re.search(r"--batch-pieces (\d+)", output)
    assert pieces
    assert fit(base, "--memory", 0.01, "--batch-pieces", pieces[1], "--dtype", "float32")[0] == 0


def test_the_file_has_what_the_table_has(base, tmp_path):
    path = tmp_path / "fit.json"
    assert fit(base, "--examples", 10, "--epochs", 2, "--rank", 8, "--json", path)[0] == 0
    found = json.loads(path.read_text(encoding="utf8"))
    assert found["parameters"] > found["adapter_parameters"] > 0
    assert len(found["estimates"]) == 6
    first = found["estimates"][0]
    assert first["bytes"]["training"] > first["bytes"]["prediction"] > first["bytes"]["weights"]
    assert first["seconds"] == pytest.approx(400 / first["pieces_per_second"]["training"])
    # The time of unpacking weights is not measured.
    assert found["estimates"][-1]["seconds"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "int4"], "dtype = 'int4' is not allowed"),
        (["--quantization", "gptq"], "quantization = 'gptq' is not allowed"),
        (["--depth", 9], "depth = 9 is more than the 4 layers"),
        (["--memory", 0], "--memory 0 is not allowed"),
        (["--target-modules", "c_attn"], "lora.target_modules names 'c_attn'"),
        (["--repeat", 100], "repeat = 100"),
        (["--batch-pieces", 0], "--batch-pieces"),
    ],
)
def test_bad_input_is_refused(base, arguments, message):
    code, output = fit(base, *arguments)
    assert code != 0
    assert message in output


def test_a_folder_without_a_base_is_refused(tmp_path):
    code, output = fit(tmp_path)
    assert code == 1
    assert "config.json" in output


def test_a_gpu_that_is_not_here_needs_its_memory(base, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(app, ["fit", str(base), "--device", "gpu"])
    assert result.exit_code == 1
    assert "torch sees no GPU here" in result.output
    result = CliRunner().invoke(app, ["fit", str(base), "--device", "gpu", "--memory", "24"])
    assert result.exit_code == 0
    assert "24.0 GiB (GPU)" in result.output


@pytest.mark.parametrize("limit", [0, 1, 7, 100])
def test_the_largest_that_fits_is_found(limit):
    found = largest_that_fits(1, 64, lambda number: number <= limit)
    assert found == (None if limit == 0 else min(limit, 64))
