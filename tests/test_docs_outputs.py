"""Outputs in the documentation are printed by the command or program above them, or are listed with a reason."""

import contextlib
import importlib
import inspect
import io
import re
import shutil
import sys
from itertools import pairwise, repeat
from pathlib import Path

import pytest
import spacy
from corpora import run
from fences import ROOT, Fence, commands, fences
from transformers import LlamaConfig

from benchmarks.memory import SHAPES
from spacy_lsbillm.training.config import training_config

pytestmark = pytest.mark.any_stack

# Marks something left out of a printed output.
LEFT_OUT = "…"
FENCES = fences()
# Every output in the documentation that no test below reproduces, by page and first line, with the reason.
NOT_RUN = {
    ("README.md", "BookRestaurant"): "five minutes of training; .ci/run trains it, and installs and loads the package",
    ("README.md", "book a table for two at an italian"): "half an hour of training",
    ("docs/adapting.md", "held-out text before"): "minutes of training on a text that is not in the repository",
    ("docs/annotating.md", '{"id": "a1"'): "a format, which tests of annotate check",
    ("docs/data.md", "play\tO"): "a format, which tests of convert check",
    ("docs/exporting.md", "\N{INFORMATION SOURCE} 4 texts"): "needs a trained pipeline",
    ("docs/fit-your-machine.md", "================================ assets/base"): "measures the speed of this machine",
    ("docs/packages.md", "transformer/"): "a list of files, which tests of packages check",
    ("docs/packages.md", "float32    int8"): "needs a trained pipeline, and measures speed",
    ("docs/packages.md", "✘ Nothing was written"): "needs a trained pipeline",
    ("docs/serving.md", "✔ Loaded 2 pipelines"): "needs trained pipelines",
    ("docs/serving.md", '{"pipeline": "slots"'): "needs a trained pipeline",
    ("docs/serving.md", '{"error": "there is no'): "needs a running service",
    ("docs/ten-steps.md", '{"text": "what time'): "a format, which tests of convert check",
    ("docs/ten-steps.md", "✔ Wrote models/smollm2"): "a base from a package registry",
    ("docs/ten-steps.md", "✔ The mask can be removed"): "a base from a package registry",
    ("docs/ten-steps.md", "corpus/train.spacy   corpus/dev.spacy"): "a base from a package registry",
    ("docs/ten-steps.md", "E    #       LOSS"): "a quarter of an hour of training",
    ("docs/ten-steps.md", "NER P"): "needs that training",
    ("docs/ten-steps.md", "[('two', 'party_size_number'"): "needs that training",
    ("docs/training.md", "\N{INFORMATION SOURCE} Continuing after step"): "needs a stopped training",
}
# The shape of SmolLM2-135M; only its config is needed here.
SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
LLAMA_8B = {**SHAPES["8b"], "max_position_embeddings": 8192, "tie_word_embeddings": False}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working folder with the content of a clone, in which commands may write."""
    for name in ("assets", "configs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    return tmp_path


def python(*arguments):
    """Run a script of the repository in this process."""
    path = Path(arguments[0])
    module = importlib.import_module(f"scripts.{path.stem}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(argument) for argument in arguments])
        return module.main(Path(arguments[1])) if inspect.signature(module.main).parameters else module.main()


def of_page(page, begins):
    """An output, and the block before it that printed it."""
    found = [
        (before, fence)
        for before, fence in pairwise(FENCES)
        if fence.page == page and fence.is_output and fence.text.lstrip().startswith(begins)
    ]
    assert len(found) == 1, f"{page} has {len(found)} outputs that begin with {begins!r}"
    return found[0]


def words(text):
    """The words that are compared, because terminals differ in width and colour."""
    # A progress bar overwrites its own line.
    text = re.sub(r"\x1b\[[0-9;]*m|[^\n]*\r", "", text)
    return re.sub(r"-{4,}|={3,}", "----", text).split()


def same(printed, found, within):
    try:
        return printed == found or ("." in printed and abs(float(printed) - float(found)) <= within)
    except ValueError:
        return False


def check(printed, found, within=0.0):
    """Check that a page shows what was printed.

    A page may leave parts out, and numbers may differ by `within`.
    """
    rest = words(found)
    parts = [part.split() for part in " ".join(words(printed)).split(LEFT_OUT)]
    for number, part in enumerate(parts):
        starts = range(len(rest) - len(part) + 1) if number else [0]
        places = [i for i in starts if len(part) <= len(rest) - i and all(map(same, part, rest[i:], repeat(within)))]
        assert places, f"not printed: {' '.join(part)}\nbut: {found}"
        rest = rest[places[0] + len(part) :]
    assert not rest or not parts[-1], f"printed beyond what the page shows: {' '.join(rest)}"


def ran(fence: Fence):
    """Run the `python -m spacy` and script lines of a block.

    RETURNS: What they print.
    """
    printed = []
    for _, line in commands([fence]):
        assert line[0] == "python", line
        printed.append(run(*line[3:]) if line[1:3] == ["-m", "spacy"] else python(*line[1:]) or "")
    return "".join(printed)


def base_of_shape(folder, **settings):
    config = LlamaConfig(**settings)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)


def small_snips(folder):
    """The SNIPS data with the development set instead of the 13,084 training requests, which would take too long."""
    for path in (ROOT / "assets" / "snips").iterdir():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path.with_name(path.name.replace("train.", "dev.")), folder / path.name)


def test_every_output_is_printed_again_or_has_a_reason():
    outputs = {(fence.page, fence.text) for fence in FENCES if fence.is_output}
    checked = set(NOT_RUN) | {(page, begins) for page, begins, *_ in [*RUN, *PRINTED_BY_PYTHON]}
    for page, begins in checked:
        of_page(page, begins)
    unknown = [
        (page, text.lstrip().split("\n")[0])
        for page, text in outputs
        if not any(page == known and text.lstrip().startswith(begins) for known, begins in checked)
    ]
    assert not unknown, f"print them again in {Path(__file__).name}, or say there why not: {unknown}"


def nothing(folder):
    pass


def smollm2(folder):
    for name in ("SmolLM2-135M-Instruct", "smollm2"):
        base_of_shape(folder / "models" / name, **SMOLLM2)


def llama(folder):
    base_of_shape(folder / "models" / "llama-3-8b", **LLAMA_8B)


def tutorial(folder):
    python("scripts/tutorial_data.py", folder / "my")


def prepared(folder):
    small_snips(folder / "snips")
    python("scripts/prepare.py", folder / "snips", folder / "corpus")


def masked(folder):
    config = training_config("assets/base", pipeline=["ner"], unmask="bits:0011")
    nlp = spacy.blank("en")
    block = {key: value for key, value in config["components"]["transformer"].items() if key != "factory"}
    nlp.add_pipe("billm_transformer", name="transformer", config=block)
    nlp.initialize()
    (folder / "training").mkdir()
    nlp.to_disk(folder / "training" / "model-best")


RUN = [
    ("docs/choosing-settings.md", "✔ Saved a complete config", smollm2),
    ("docs/commands.md", "✔ Saved a complete config", nothing),
    ("docs/commands.md", "================ assets/base", prepared),
    ("docs/commands.md", "==== transformer", masked),
    ("docs/fit-your-machine.md", "============================= models/llama-3-8b", llama),
    ("docs/ten-steps.md", "✔ corpus/train.spacy", tutorial),
    ("docs/ten-steps.md", "✔ Saved a complete config", smollm2),
]
# Outputs of Python blocks, with the tolerance of numbers between processors.
PRINTED_BY_PYTHON = [("docs/heads.md", "person", 0.02), ("docs/new-labels.md", "[('boston'", 0.0)]


@pytest.mark.parametrize(("page", "begins", "prepare"), RUN)
def test_a_command_prints_what_its_page_shows(clone, page, begins, prepare):
    prepare(clone)
    command, output = of_page(page, begins)
    check(output.text, ran(command))


@pytest.mark.parametrize(("page", "begins", "within"), PRINTED_BY_PYTHON)
def test_a_program_prints_what_its_page_shows(clone, page, begins, within):
    program, output = of_page(page, begins)
    assert program.language == "python"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program.text, page, "exec"), {})
    check(output.text, printed.getvalue(), within)
