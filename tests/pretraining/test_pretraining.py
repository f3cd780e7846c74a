"""Pre-training from plain text, through its function and its commands."""

import json
import lzma
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kills import dying_after, killed
from safetensors.torch import load_file
from tiny import TEXTS, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, load_backbone
from spacy_lsbillm.backbone.loading import load_base
from spacy_lsbillm.backbone.tokenizer import load_tokenizer
from spacy_lsbillm.errors import BaseError, SettingError, StorageError
from spacy_lsbillm.files import sole_writer
from spacy_lsbillm.language_model import read_documents, score_text, text_files
from spacy_lsbillm.language_model.score import windows
from spacy_lsbillm.pretraining import PretrainingSettings, pretrain, run
from spacy_lsbillm.pretraining.loop import COLUMNS, learn_rate
from spacy_lsbillm.pretraining.objectives import hidden_tokens
from spacy_lsbillm.pretraining.run import OBJECTIVE_KEY, Places, build_model
from spacy_lsbillm.pretraining.settings import ShapeSettings, TrainingSettings

CPU = torch.device("cpu")
TINY = {
    "tokenizer": {"vocab_size": 300, "every": 1},
    "model": {"layers": 4, "width": 32, "heads": 4, "key_value_heads": 2, "feed_forward": 48, "positions": 16},
    "training": {
        "tokens": 16 * 8 * 40,
        "batch": 8,
        "micro_batch": 4,
        "learn_rate": 0.01,
        "warmup_steps": 5,
        "checkpoint_every": 5,
        "precision": "float32",
    },
}


def settings(**training) -> PretrainingSettings:
    return PretrainingSettings.read({**TINY, "training": {**TINY["training"], **training}})


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A folder with a plain file and a compressed one."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text("\n\n".join(TEXTS * 30), encoding="utf8")
    with lzma.open(folder / "b.txt.xz", "wt", encoding="utf8") as file:
        file.write("\n\n".join(TEXTS[::-1] * 30))
    return folder


def places(text: Path, folder: Path, **changed) -> Places:
    return Places(
        **{"text": [text], "valid": [text / "a.txt"], "output": folder / "out", "work": folder / "w", **changed}
    )


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory) -> dict[str, Path]:
    """A finished run of each objective."""
    torch.set_num_threads(1)
    made = {}
    for objective in ("clm", "mlm"):
        at = places(text, tmp_path_factory.mktemp(objective))
        pretrain(settings(objective=objective), at, CPU)
        made[objective] = at.output
    return made


def record(folder: Path) -> dict:
    return json.loads((folder / "pretraining.json").read_text())


def column(folder: Path, name: str) -> list[float]:
    return [row[COLUMNS.index(name)] for row in record(folder)["curve"]]


@pytest.mark.parametrize("objective", ["clm", "mlm"])
def test_it_learns_and_is_a_base_like_any_other(trained, objective):
    folder = trained[objective]
    held_out = column(folder, "held_out_nats")
    assert held_out[-1] < held_out[0] - 1 < math.log(300)
    assert len(AutoTokenizer.from_pretrained(folder)) == 300
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 4
    assert all(tensor.dtype == torch.bfloat16 for tensor in load_file(folder / "model.safetensors").values())
    backbone = load_backbone(BackboneSettings(BaseSettings(name=str(folder))), device=CPU)
    assert getattr(backbone.config, OBJECTIVE_KEY) == objective
    ids = torch.tensor([backbone.tokenizer(TEXTS[0])["input_ids"]])
    assert backbone.states(ids, torch.ones_like(ids)).shape == (1, ids.shape[1], 32)


def test_the_card_and_the_record_say_what_was_done(trained):
    found = record(trained["clm"])
    assert found["tokens_seen"] == column(trained["clm"], "tokens")[-1] == 16 * 8 * 40
    assert found["text"] == ["a.txt", "b.txt.xz"]
    assert PretrainingSettings.read(found["settings"]) == settings()
    assert {"torch", "transformers", "spacy-lsbillm"} <= set(found["versions"])
    card = (trained["clm"] / "README.md").read_text()
    assert f"{found['held_out']['bits_per_byte']:.3f} bits per byte" in card
    assert "4 layers, width 32" in card
    assert found["held_out"]["bits_per_byte"] < found["held_out"]["random_weights_bits_per_byte"] - 1


def test_the_encoder_is_trained_with_what_follows_a_hidden_token_and_the_decoder_without():
    """The gradient of a loss at the first position reaches the last one only in the encoder."""
    for objective, reaches in (("mlm", True), ("clm", False)):
        model = build_model(settings(objective=objective), make_tokenizer())
        embedded = model.get_input_embeddings()(torch.arange(16)[None]).detach().requires_grad_()
        model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state[0, 0].sum().backward()
        assert bool(embedded.grad[0, -1].any()) == reaches


def test_the_loss_of_hidden_tokens_looks_at_nothing_else():
    model = build_model(settings(), make_tokenizer())
    objective = hidden_tokens(mask_id=299, rate=0.25)
    blocks = torch.randint(0, 298, (2, 17), generator=torch.Generator().manual_seed(0))
    seen = []
    model.model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"]), with_kwargs=True)
    assert objective(model, blocks, 7) == objective(model, blocks, 7) != objective(model, blocks, 8)
    hidden = seen[0] == 299
    assert torch.equal(hidden.sum(1), torch.tensor([4, 4]))
    assert torch.equal(seen[0][~hidden], blocks[:, :-1][~hidden])
    with torch.no_grad():
        logits = model(input_ids=seen[0]).logits[hidden]
    by_hand = torch.nn.functional.cross_entropy(logits, blocks[:, :-1][hidden])
    assert objective(model, blocks, 7).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.fixture(scope="module")
def stopped(text, tmp_path_factory) -> dict[str, Path]:
    """The folder of a run that was killed after its first checkpoint, by objective."""
    found = {objective: tmp_path_factory.mktemp(objective) for objective in ("clm", "mlm")}
    for objective, folder in found.items():

        def begin(objective=objective, folder=folder):
            run.save_checkpoint = dying_after(run.save_checkpoint)
            pretrain(settings(objective=objective), places(text, folder), CPU)

        killed(begin)
    return found


@pytest.mark.any_stack
@pytest.mark.parametrize("objective", ["clm", "mlm"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(trained, stopped, text, objective):
    chosen, at = settings(objective=objective), places(text, stopped[objective])
    assert (at.work / "checkpoint.pt").is_file() and not at.output.exists()
    # A kill during the writing of a checkpoint leaves this file behind.
    (at.work / "checkpoint.pt.partial").write_bytes(b"half")
    pretrain(chosen, at, CPU, resume=True)
    for name in ("step", "loss", "held_out_nats"):
        assert column(at.output, name) == column(trained[objective], name)
    assert record(at.output)["parts"] == 2
    one, other = (load_file(folder / "model.safetensors") for folder in (at.output, trained[objective]))
    assert all(torch.equal(one[name], other[name]) for name in other)
    for path in trained[objective].iterdir():
        if path.name not in ("README.md", "pretraining.json"):
            assert path.read_bytes() == (at.output / path.name).read_bytes(), path.name


def test_the_same_seed_gives_the_same_curve_and_another_does_not(trained, text, tmp_path):
    at = places(text, tmp_path)
    pretrain(settings(seed=1), at, CPU)
    assert column(at.output, "loss") != column(trained["clm"], "loss")


def test_a_tokenizer_of_ones_own_is_taken_and_gets_a_mask_token(make_base, text, tmp_path):
    base = make_base("llama")
    at = places(text, tmp_path, tokenizer=base)
    pretrain(settings(objective="mlm", tokens=16 * 8), at, CPU)
    ours, theirs = load_tokenizer(at.output), load_tokenizer(base)
    assert ours(TEXTS[0])["input_ids"] == theirs(TEXTS[0])["input_ids"]
    assert ours.mask_token_id == len(theirs)
    assert AutoModelForCausalLM.from_pretrained(at.output).config.vocab_size == len(theirs) + 1


def test_warm_up_then_cosine():
    training = TrainingSettings(learn_rate=1.0, final_rate=0.1, warmup_steps=10)
    rates = [learn_rate(training, step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[60] == pytest.approx(0.55)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


@given(st.integers(0, 200), st.integers(2, 40), st.integers(0, 38), st.integers(0, 1))
def test_windows_score_each_token_once_with_its_context(n_tokens, room, overlap, first):
    overlap = min(overlap, room - 2)
    found = list(windows(n_tokens, room, overlap, first))
    scored = [i for window in found for i in range(window.first, window.end)]
    assert scored == list(range(first, n_tokens))
    for window in found:
        assert window.end - window.start <= room
        assert window.first - window.start >= min(overlap, window.first) or window.start == 0


@pytest.mark.parametrize("start", [True, False])
def test_a_score_is_the_loss_of_the_model(make_base, text, start):
    """One window over a short text, computed by hand."""
    folder = make_base("llama", start=start)
    file = text.parent / "short.txt"
    file.write_text(TEXTS[0])
    model = load_base(folder, BaseSettings(name=str(folder)), CPU)
    tokenizer = load_tokenizer(folder)
    if not start:
        tokenizer.bos_token = None
    score = score_text(model, tokenizer, [file], length=64)
    ids = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    before = tokenizer.bos_token_id if start else tokenizer.eos_token_id
    whole = torch.tensor([[before, *ids, tokenizer.eos_token_id]])
    assert score.nats_per_token == pytest.approx(model(input_ids=whole, labels=whole).loss.item(), rel=1e-5)
    assert score.bytes == len(TEXTS[0].encode())
    assert score.bits_per_byte == pytest.approx(score.nats / math.log(2) / score.bytes)
    assert score.perplexity == pytest.approx(math.exp(score.nats_per_token))


def test_windows_of_a_score_have_the_context_they_say(make_base, text):
    """Scored again one token at a time, with all the context in its window."""
    folder = make_base("llama")
    model = load_base(folder, BaseSettings(name=str(folder)), CPU)
    tokenizer = load_tokenizer(folder)
    file = text.parent / "long.txt"
    file.write_text("\n\n".join(TEXTS[:2]))
    score = score_text(model, tokenizer, [file], length=10, overlap=4)
    documents = (TEXTS[0] + "\n", TEXTS[1])
    stream = [i for text in documents for i in [*tokenizer(text, add_special_tokens=False)["input_ids"], 1]]
    nats = 0.0
    for window in windows(len(stream), 10, 4, 0):
        for i in range(window.first, window.end):
            seen = torch.tensor([[tokenizer.bos_token_id, *stream[window.start : i]]])
            with torch.no_grad():
                nats -= model(input_ids=seen).logits[0, -1].log_softmax(-1)[stream[i]].item()
    assert score.nats == pytest.approx(nats, rel=1e-4)
    assert score.tokens == len(stream)


def test_blank_lines_separate_documents(text):
    assert list(read_documents(text_files([text])))[:2] == [TEXTS[0] + "\n", TEXTS[1] + "\n"]


# Bad input: an error at once that says what to do, and nothing overwritten.


def refuses(message: str, error: type[ValueError] = SettingError):
    return pytest.raises(error, match=message)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("model", "layers", 0),
        ("model", "width", 30),
        ("model", "key_value_heads", 3),
        ("training", "objective", "rtd"),
        ("training", "micro_batch", 3),
        ("training", "mask_rate", 1.5),
        ("training", "learn_rate", "fast"),
        ("training", "precision", "float8"),
        ("training", "tokens", True),
        ("tokenizer", "vocab_size", 100),
        ("tokenizer", "size", 100),
        ("optimizer", "name", "sgd"),
    ],
)
def test_a_setting_out_of_its_range_is_named(section, name, value):
    with pytest.raises(SettingError) as raised:
        PretrainingSettings.read({**TINY, section: {**TINY.get(section, {}), name: value}})
    assert section in str(raised.value)


def test_empty_text(tmp_path):
    for content in ("", "\n \n\n"):
        (tmp_path / "empty.txt").write_text(content)
        with refuses("supports|empty"):
            pretrain(settings(), Places([tmp_path / "empty.txt"], [tmp_path], tmp_path / "o", tmp_path / "w"), CPU)
    (tmp_path / "no_text").mkdir()
    for path in (tmp_path / "no_text", tmp_path / "nowhere"):
        with refuses("has no file|there is no text"):
            text_files([path])


def test_held_out_text_that_is_too_short(text, tmp_path):
    (tmp_path / "short.txt").write_text("a")
    with refuses("held-out text has 2 tokens, fewer than one block of 16"):
        pretrain(settings(), places(text, tmp_path, valid=[tmp_path / "short.txt"]), CPU)


def test_text_that_is_not_utf8(tmp_path, text):
    (tmp_path / "latin.txt").write_bytes(b"fine\nna\xefve\n")
    with refuses("latin.txt' is not UTF-8: line 2 has the byte 0xef at 2.*iconv"):
        pretrain(settings(), places(tmp_path / "latin.txt", tmp_path, valid=[text]), CPU)
    whole = (text / "b.txt.xz").read_bytes()
    for name, content in (("cut.txt.xz", whole[:-40]), ("plain.txt.xz", b"no xz")):
        (tmp_path / name).write_bytes(content)
        with refuses("is not a complete xz file"):
            list(read_documents([tmp_path / name]))


def test_a_vocabulary_larger_than_the_text_supports(text, tmp_path):
    sections = {**TINY, "tokenizer": {"vocab_size": 50_000, "every": 1}}
    with refuses(r"vocab_size = 50000 is more than the text supports: it gives (\d+) entries. Use at most \1"):
        pretrain(PretrainingSettings.read(sections), places(text, tmp_path), CPU)


def test_an_output_folder_that_holds_something_else(trained, text, tmp_path):
    at = places(text, tmp_path)
    at.output.mkdir()
    (at.output / "thesis.tex").write_text("precious")
    with refuses("is not empty", StorageError):
        pretrain(settings(), at, CPU)
    assert [path.name for path in at.output.iterdir()] == ["thesis.tex"]
    assert not at.work.exists()
    with refuses("holds a finished run", StorageError):
        pretrain(settings(), places(text, tmp_path, output=trained["clm"]), CPU)
    with refuses("holds something else", StorageError):
        pretrain(settings(), places(text, tmp_path, output=tmp_path / "new", work=at.output), CPU)


def test_checkpoints_of_other_runs(trained, text, tmp_path):
    work = trained["clm"].parent / "w"
    before = (work / "checkpoint.pt").read_bytes()
    at = places(text, tmp_path, work=work)
    with refuses("Use --resume to continue", StorageError):
        pretrain(settings(), at, CPU)
    shape = PretrainingSettings.read({**settings().as_sections(), "model": {**TINY["model"], "layers": 3}})
    for other, named in ((shape, "model.layers was 4 and is 3"), (settings(seed=3), "training.seed was 0 and is 3")):
        with refuses(named, StorageError):
            pretrain(other, at, CPU, resume=True)
    assert (work / "checkpoint.pt").read_bytes() == before
    with refuses("there is no run in", StorageError):
        pretrain(settings(), places(text, tmp_path), CPU, resume=True)


def test_a_run_on_other_text_or_another_tokenizer_is_another_run(make_base, trained, text, tmp_path):
    """Also if there is no checkpoint yet, because the run's tokens exist."""
    work = tmp_path / "w"
    shutil.copytree(trained["clm"].parent / "w", work)
    other = tmp_path / "other.txt"
    other.write_text("something else\n\n" * 50)
    for changed in ({"text": [other]}, {"valid": [other]}, {"tokenizer": make_base()}):
        with refuses(f"sources.{next(iter(changed))} was", StorageError):
            pretrain(settings(), replace(places(text, tmp_path, work=work), **changed), CPU, resume=True)
    (work / "checkpoint.pt").unlink()
    with refuses("sources.text was", StorageError):
        pretrain(settings(), replace(places(text, tmp_path, work=work), text=[other]), CPU)
    # A run that ended before its first checkpoint continues, with or without --resume.
    at = places(text, tmp_path, work=work)
    pretrain(settings(), at, CPU, resume=True)
    assert column(at.output, "loss") == column(trained["clm"], "loss")


def test_a_work_folder_that_another_run_is_in(text, tmp_path):
    at = places(text, tmp_path)
    with sole_writer(at.work), refuses("another process is writing", StorageError):
        pretrain(settings(), at, CPU)
    assert not at.work.exists()


def test_a_run_that_was_killed_before_it_began_is_begun_again(text, tmp_path):
    at = places(text, tmp_path)
    at.work.mkdir()
    (at.work / "settings.json.partial").write_text("{")
    pretrain(settings(tokens=512), at, CPU)
    assert at.output.is_dir()


def test_output_and_work_lie_apart(text, tmp_path):
    for work in (tmp_path / "out", tmp_path / "out" / "w", tmp_path):
        with refuses("must lie apart", StorageError):
            pretrain(settings(), places(text, tmp_path, work=work), CPU)


def test_the_tokenizer_sees_both_cases(text, tmp_path):
    """Whatever the two numbers are by which documents are drawn."""
    (tmp_path / "t.txt").write_text("\n\n".join(["Boston Paris"] * 40))
    for every in (2, 5):
        sections = {
            **settings(lowercase_every=5, tokens=16 * 8).as_sections(),
            "tokenizer": {"vocab_size": 267, "every": every},
        }
        at = Places([tmp_path / "t.txt"], [text], tmp_path / f"o{every}", tmp_path / f"w{every}")
        pretrain(PretrainingSettings.read(sections), at, CPU)
        assert any("B" in piece and 1 < len(piece) < 8 for piece in load_tokenizer(at.output).get_vocab())


def test_a_damaged_checkpoint(trained, text, tmp_path):
    work = tmp_path / "w"
    shutil.copytree(trained["clm"].parent / "w", work)
    (work / "checkpoint.pt").write_bytes((work / "checkpoint.pt").read_bytes()[:5000])
    with refuses("checkpoint.pt cannot be read", StorageError):
        pretrain(settings(), places(text, tmp_path), CPU, resume=True)


def test_a_folder_without_a_tokenizer(text, tmp_path):
    with refuses("holds no tokenizer", BaseError):
        pretrain(settings(), places(text, tmp_path, tokenizer=tmp_path), CPU)


def test_a_run_that_diverges_is_stopped(text, tmp_path):
    at = places(text, tmp_path)
    wild = {"learn_rate": 1.0, "grad_clip": 1e6, "warmup_steps": 0, "weight_decay": 10.0, "beta2": 0.0}
    with refuses("the loss is .*nan.*learn_rate below 1"):
        pretrain(settings(**wild, checkpoint_every=1), at, CPU)
    assert not at.output.exists()
    state = torch.load(at.work / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_the_defaults_are_a_model_of_twenty_megabytes():
    shape = ShapeSettings()
    layer = 2 * shape.width * (shape.width + shape.width * shape.key_value_heads // shape.heads)
    layer += 3 * shape.width * shape.feed_forward
    parameters = shape.layers * layer + PretrainingSettings().tokenizer.vocab_size * shape.width
    assert shape.layers >= 8
    assert 2 * parameters < 20e6
