"""Our commands under `python -m spacy lsbillm`."""

import json
import shlex

import numpy as np
import pytest
import spacy
from corpora import run, write_config, write_corpus
from pipelines import build, trained
from spacy.tokens import Doc, DocBin, Span
from spacy.util import load_config, registry
from tiny import SHAPE, TEXTS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.main import get_command
from typer.testing import CliRunner

from spacy_lsbillm.alignment import SpecialPieces
from spacy_lsbillm.alignment.statistics import CutSettings, count_pieces
from spacy_lsbillm.cli import app
from spacy_lsbillm.training.config import DEVICES
from spacy_lsbillm.training.fitted import SIZES

pytestmark = pytest.mark.any_stack


def test_masks_command(make_base, tmp_path):
    trained(make_base(), unmask="0101", steps=1).to_disk(tmp_path / "pipeline")
    result = CliRunner().invoke(app, ["masks", str(tmp_path / "pipeline")])
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    for layer, word in enumerate(("causal", "bidirectional", "causal", "bidirectional")):
        assert [str(layer), word] in lines
    assert 'unmask = "0101"' in result.output


def test_masks_command_says_what_is_repeated(make_base, tmp_path):
    trained(make_base(), unmask="none", repeat=2, steps=1).to_disk(tmp_path / "pipeline")
    result = CliRunner().invoke(app, ["masks", str(tmp_path / "pipeline")])
    assert "repeat = 2: the text stands 3 times in a row" in result.output


@pytest.mark.parametrize("pipeline", ["no_such_package", "empty", "other"])
def test_masks_command_on_something_else(tmp_path, pipeline):
    (tmp_path / "empty").mkdir()
    spacy.blank("en").to_disk(tmp_path / "other")
    name = pipeline if pipeline.startswith("no_") else str(tmp_path / pipeline)
    result = CliRunner().invoke(app, ["masks", name])
    assert result.exit_code == 1
    assert name in result.output.replace("\n", "")


def test_the_commands_are_found_without_importing_anything_by_hand():
    """spaCy loads what packages have registered under this name before it parses its arguments."""
    assert registry.cli.get_all()["lsbillm"] is app
    assert {"masks", "init-config", "debug-pieces"} <= set(get_command(app).commands)


def test_the_letter_of_the_gpu_is_that_of_spacy_in_every_command():
    """It has no other meaning either: a number would be accepted as something else, such as groups of layers."""
    letters = {}
    for name, command in get_command(app).commands.items():
        for option in command.params:
            if "--gpu-id" in option.opts or "-g" in option.opts:
                letters[name] = option.opts
    assert set(letters) >= {"pretrain", "perplexity", "search-mask", "predict-mask"}
    assert all(options == ["--gpu-id", "-g"] for options in letters.values()), letters


@pytest.mark.parametrize("command", ["search", "search-mask", "predict-mask"])
def test_a_gpu_that_is_not_there_is_no_number_of_groups(command, make_base, tmp_path):
    config = write_config(tmp_path / "c.cfg", write_corpus(tmp_path / "c.spacy", 1), make_base(), ["sequence_labeler"])
    assert "GPU" in ours(command, config, tmp_path / "out", "-g", "3", "--training.max_steps", "64", code=1)
    assert "none below 1" in ours(command, config, tmp_path / "out", "--groups", "0", code=1)
    assert not (tmp_path / "out").exists()


def test_an_untrained_pipeline_is_saved_and_loaded(make_base, tmp_path):
    build(make_base(), heads=()).to_disk(tmp_path / "pipeline")
    assert not spacy.load(tmp_path / "pipeline").get_pipe("transformer").model.shims[0].loaded
    result = CliRunner().invoke(app, ["masks", str(tmp_path / "pipeline")])
    assert result.exit_code == 1
    assert "never initialised" in result.output


def ours(*arguments, code=0):
    """The output of one of our commands without line breaks, which depend on the terminal's width."""
    return " ".join(run("lsbillm", *arguments, code=code).split())


def test_init_config_writes_a_complete_config_and_the_next_command(make_base, tmp_path):
    output = tmp_path / "my configs" / "c.cfg"
    shown = run(
        "lsbillm",
        "init-config",
        output,
        "--pipeline",
        "transformer, spancat",
        "--unmask",
        "0011",
        "--repeat",
        "1",
        "--lang",
        "de",
    )
    (command,) = [line for line in shown.splitlines() if line.startswith("python -m spacy train")]
    config = load_config(output)
    assert config["nlp"]["pipeline"] == ["transformer", "spancat"]
    assert config["components"]["transformer"]["model"]["unmask"] == "0011"
    assert config["components"]["transformer"]["model"]["repeat"] == 1
    assert config["components"]["transformer"]["model"]["store_base"] == "reference"
    assert "Nothing to auto-fill" in run("init", "fill-config", output, tmp_path / "filled.cfg")
    # The printed command runs once its paths exist; the base is only named now.
    corpus = write_corpus(tmp_path / "corpus.spacy", copies=1)
    words = [str(corpus) if word.endswith(".spacy") else word for word in shlex.split(command)][3:]
    words[words.index("--output") + 1] = str(tmp_path / "out")
    run(*words, "--components.transformer.model.name", make_base(), "--training.max_steps", 2)
    assert (tmp_path / "out" / "model-last").is_dir()


def test_init_config_to_standard_output():
    result = CliRunner().invoke(app, ["init-config", "-", "--device", "gpu", "--base", "no/such-base"])
    assert result.exit_code == 0
    config = spacy.util.load_config_from_str(result.stdout)
    model = config["components"]["transformer"]["model"]
    assert (model["name"], model["dtype"]) == ("no/such-base", "bfloat16")


def test_init_config_says_what_a_gpu_needs(tmp_path):
    assert "cupy" in ours("init-config", tmp_path / "gpu.cfg", "--device", "gpu").lower()
    assert "--gpu-id 0" in ours("init-config", tmp_path / "gpu.cfg", "--device", "gpu", "--force")
    assert "--gpu-id" not in ours("init-config", tmp_path / "cpu.cfg", "--device", "cpu")


def test_init_config_fits_the_settings_to_the_base_and_says_why(make_base, tmp_path):
    shown = ours("init-config", tmp_path / "fitted.cfg", "--base", make_base())
    fitted = SIZES[0]
    assert f"4 layers, width {SHAPE['hidden_size']}" in shown and fitted.source in shown
    training = load_config(tmp_path / "fitted.cfg")["training"]
    assert training["optimizer"]["learn_rate"]["initial_rate"] == fitted.learn_rate
    for setting in (
        "learn_rate",
        "learn_rate_scale",
        "lora.r",
        "warmup_steps",
        "window",
        "depth",
        "max_steps",
        "dtype",
    ):
        assert f" {setting} = " in shown or f" {setting}: " in shown
    # For a hub id the size is not known, and nothing is downloaded to find out.
    shown = ours("init-config", tmp_path / "device.cfg", "--base", "no/such-base")
    assert "its size is not known" in shown
    training = load_config(tmp_path / "device.cfg")["training"]
    assert training["optimizer"]["learn_rate"]["initial_rate"] == DEVICES["cpu"].learn_rate
    (tmp_path / "empty").mkdir()
    assert "config.json" in ours("init-config", tmp_path / "c.cfg", "--base", tmp_path / "empty", code=1)


def test_init_config_sets_the_length_of_the_training_and_says_how(make_base, tmp_path):
    told = "warmup_steps = 8, eval_frequency = 12: for --steps 72"
    for base in (make_base(), "no/such-base"):
        shown = ours("init-config", tmp_path / "c.cfg", "--base", base, "--steps", 72, "--force")
        assert told in " ".join(shown.split()) and "max_steps = total_steps = 72 of 600 words" in shown
        training = load_config(tmp_path / "c.cfg")["training"]
        assert (training["max_steps"], training["eval_frequency"]) == (72, 12)


def test_init_config_keeps_an_existing_file(tmp_path):
    output = tmp_path / "c.cfg"
    output.write_text("mine", encoding="utf8")
    assert "--force" in ours("init-config", output, code=1)
    assert output.read_text(encoding="utf8") == "mine"
    ours("init-config", output, "--force")
    assert "billm_transformer" in output.read_text(encoding="utf8")
    assert [path.name for path in tmp_path.iterdir()] == ["c.cfg"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--pipeline", "ner,nerr", "'nerr'"),
        ("--pipeline", "transformer", "at least one"),
        ("--lang", "qq", "'qq'"),
        ("--unmask", "bits:012", "'bits:012'"),
        ("--base", "", "name = ''"),
    ],
)
def test_init_config_refuses(tmp_path, option, value, said):
    assert said in ours("init-config", tmp_path / "c.cfg", option, value, code=1)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def words_base(make_base, tmp_path):
    """A base whose tokenizer has few words, one of which covers two of spaCy's tokens."""
    vocabulary = {word: i for i, word in enumerate(["[unk]", "new", "york", "don't", "in", "rain"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text((make_base() / "config.json").read_text(encoding="utf8"), encoding="utf8")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[unk]").save_pretrained(folder)
    return folder


@pytest.fixture
def odd_corpus(tmp_path):
    """A long document, one with an unknown word and an entity that ends inside a piece, one that ends in spaces."""
    vocab = spacy.blank("en").vocab
    docs = [
        Doc(vocab, words=["new", "york"] * 50),
        Doc(vocab, words=["in", "do", "n't", "zagreb"], spaces=[True, False, True, False]),
        Doc(vocab, words=["rain", "in", "  "], spaces=[True, True, False]),
        Doc(vocab, words=[]),
    ]
    docs[1].ents = [Span(docs[1], 0, 2, "odd"), Span(docs[1], 3, 4, "city")]
    docs[0].spans["sc"] = [Span(docs[0], 0, 2, "city")]
    DocBin(docs=docs).to_disk(tmp_path / "odd.spacy")
    return tmp_path / "odd.spacy"


def test_debug_pieces_counts(words_base, odd_corpus, tmp_path):
    shown = ours("debug-pieces", words_base, odd_corpus, "--json", tmp_path / "out" / "pieces.json")
    found = json.loads((tmp_path / "out" / "pieces.json").read_text(encoding="utf8"))
    # The window is 64, the shortest default; 100 pieces need two windows.
    assert (found["window"], found["overlap"]) == (64, 0)
    numbers = found["corpora"][str(odd_corpus)]
    assert (numbers["docs"], numbers["tokens"], numbers["pieces"]) == (4, 107, 105)
    assert numbers["pieces_per_token"] == {"mean": 1.0, "median": 1, "p95": 1, "max": 1, "max_token": "new"}
    # Spaces at the end of a text belong to the word before them.
    assert numbers["tokens_without_pieces"] == {"count": 0, "examples": []}
    assert numbers["unknown_pieces"] == {"count": 1, "examples": ["zagreb"]}
    assert numbers["longest_doc"] == 100
    assert (numbers["windows"], numbers["long_docs"]) == (4, {"count": 1, "windows": 2})
    ents = {"spans": 2, "boundaries": 4, "inside": 1, "examples": ["in do [odd]"]}
    spans = {"spans": 1, "boundaries": 2, "inside": 0, "examples": []}
    assert numbers["boundaries_inside_pieces"] == {"doc.ents": ents, 'doc.spans["sc"]': spans}
    for words in ("nothing is cut off", "'zagreb'", "1 of 4 boundaries in doc.ents", "in do [odd]"):
        assert words in shown


def test_debug_pieces_reads_the_settings_of_a_config(words_base, odd_corpus, tmp_path):
    config = tmp_path / "c.cfg"
    ours("init-config", config, "--base", words_base)
    changed = load_config(config)
    changed["components"]["transformer"]["model"].update(window=10, overlap=2, white_space="text")
    changed.to_disk(config)
    ours("debug-pieces", config, odd_corpus, odd_corpus.parent, "--json", tmp_path / "pieces.json")
    found = json.loads((tmp_path / "pieces.json").read_text(encoding="utf8"))
    assert (found["base"], found["window"], found["overlap"]) == (str(words_base), 10, 2)
    file, folder = found["corpora"].values()
    assert file["long_docs"] == {"count": 1, "windows": 13}
    assert file["tokens_without_pieces"] == {"count": 1, "examples": ["  "]}
    assert file == folder


def test_numbers_do_not_depend_on_batches_but_padding_does(make_base):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(make_base())
    docs = [spacy.blank("en").make_doc(" ".join([text] * n)) for n, text in enumerate(TEXTS * 3, start=1)]
    found = []
    for batch_size, pass_cost in ((1, 0), (5, 0), (len(docs), 10**6)):
        special = SpecialPieces.of(tokenizer)
        cutting = CutSettings(
            tokenizer,
            special,
            lambda docs: [[doc[:]] for doc in docs],
            window=4096,
            overlap=0,
            batch_size=batch_size,
            white_space="lines",
            max_items=10**6,
            pass_cost=pass_cost,
            row=0,
        )
        found.append(count_pieces(docs, cutting).as_dict())
    padding = [numbers.pop("padding_share") for numbers in found]
    assert found[0] == found[1] == found[2]
    assert padding[0] == 0 < padding[2]
    # If a pass costs this much, all texts are padded to the longest; each has a start token.
    lengths = np.array([len(tokenizer(doc.text)["input_ids"]) for doc in docs])
    assert padding[2] == pytest.approx(1 - lengths.mean() / lengths.max(), abs=1e-4)


def test_debug_pieces_refuses(words_base, odd_corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.spacy").write_bytes(b"no corpus")
    (tmp_path / "text.txt").write_text("no corpus", encoding="utf8")
    spacy.blank("en").config.to_disk(tmp_path / "blank.cfg")
    for corpus in ("missing.spacy", "empty", "bad.spacy", "text.txt"):
        shown = ours("debug-pieces", words_base, tmp_path / corpus, "--json", tmp_path / "out.json", code=1)
        assert corpus in shown.replace(" ", "")
    assert "no billm_transformer" in ours("debug-pieces", tmp_path / "blank.cfg", odd_corpus, code=1)
    assert "no folder" in ours("debug-pieces", "./missing", odd_corpus, code=1)
    (words_base / "tokenizer.json").unlink()
    assert "tokenizer" in ours("debug-pieces", words_base, odd_corpus, code=1)
    assert not (tmp_path / "out.json").exists()
