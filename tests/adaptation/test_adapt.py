"""Adapting a base: its objectives, its result, kills, merging and bad input; and the command."""

import json
import os
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from corpora import run
from kills import dying_after, killed
from peft import PeftModel
from safetensors.torch import load_file
from tiny import FAMILIES, TEXTS
from transformers import AutoModelForCausalLM

from spacy_lsbillm.adaptation import AdaptationPlaces, AdaptationSettings, adapt
from spacy_lsbillm.adaptation import run as adaptation_run
from spacy_lsbillm.adaptation.tasks import drawn, nats, one_per_row, positions_of, task_of
from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, LoraSettings, fingerprint, load_backbone
from spacy_lsbillm.backbone.tokenizer import load_tokenizer
from spacy_lsbillm.errors import BaseError, SettingError, StorageError

CPU = torch.device("cpu")
START, END, MASK = 0, 1, 319
QUICK = {
    "tokens": 16 * 4 * 20,
    "length": 16,
    "batch": 4,
    "micro_batch": 2,
    "warmup_steps": 2,
    "learn_rate": 0.003,
    "checkpoint_every": 5,
    "precision": "float32",
}
OPTIONS = [
    *("--tokens", 16 * 4 * 20, "--length", 16, "--batch", 4, "--micro-batch", 2, "--warmup", 2, "--rate", 0.003),
    *("--checkpoint-every", 5, "--precision", "float32"),
]


def quick(**changed) -> AdaptationSettings:
    return AdaptationSettings(**{**QUICK, **changed})


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(TEXTS * 20), encoding="utf8")
    return path


def at(text: Path, folder: Path, **changed) -> AdaptationPlaces:
    return AdaptationPlaces(**{"text": [text], "valid": [], "output": folder / "out", "work": folder / "w", **changed})


@pytest.fixture(scope="module")
def adapted(make_base, text, tmp_path_factory):
    """adapted(**settings): the places of a finished run over the llama; each run is made once."""
    made = {}

    def make(**settings) -> AdaptationPlaces:
        key = str(settings)
        if key not in made:
            torch.set_num_threads(1)
            places = at(text, tmp_path_factory.mktemp("adapted"))
            adapt(BaseSettings(str(make_base("llama"))), quick(**settings), places, CPU)
            made[key] = places
        return made[key]

    return make


def record(folder: Path) -> dict:
    return json.loads((folder / "adaptation.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def blocks(rows: int = 3, length: int = 12) -> torch.Tensor:
    """Rows of several documents each."""
    ids = torch.randint(2, 300, (rows, length + 1), generator=torch.Generator().manual_seed(3))
    ids[:, 5] = END
    ids[:, 6] = START
    return ids


# Objectives.


@pytest.mark.parametrize(("objective", "shift"), [("mntp", 1), ("mlm", 0)])
def test_the_answer_is_not_in_what_is_read(objective, shift):
    task = task_of(objective, 0.3, MASK, END, [START, END])
    given = blocks()
    question = task(given, 7)
    hidden = question.ids == MASK
    assert torch.equal(question.chosen, hidden.roll(-shift, 1))
    assert torch.equal(question.answers, given[:, :-1][hidden])
    assert hidden.sum(1).tolist() == [3, 3, 3]
    assert not torch.isin(question.answers, torch.tensor([START, END])).any()
    assert torch.equal(task(given, 7).ids, question.ids) and not torch.equal(task(given, 8).ids, question.ids)
    # Another piece in the hidden place changes the answer but not the input.
    other = given.clone()
    other[:, :-1][hidden] = 310
    asked_again = task(other, 7)
    assert torch.equal(asked_again.ids, question.ids) and torch.equal(asked_again.chosen, question.chosen)
    assert (asked_again.answers == 310).all()


def test_the_next_piece_and_never_that_of_the_next_document():
    given = blocks()
    question = task_of("causal", 0.3, MASK, END, [])(given, 0)
    assert torch.equal(question.ids, given[:, :-1])
    assert not question.chosen[:, 5].any()
    assert question.chosen.sum() == 3 * 11


def test_places_begin_anew_after_the_end_of_a_document():
    assert positions_of(blocks()[:1, :-1], END).tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]]


def test_a_row_without_a_place_to_mask_is_asked_nothing():
    allowed = torch.tensor([[False] * 4, [True] + [False] * 3])
    assert drawn(allowed, 0.2, 0).tolist() == allowed.tolist()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_loss_is_that_of_the_model_and_of_documents_by_themselves(make_base, family):
    backbone = load_backbone(BackboneSettings(BaseSettings(str(make_base(family))), "all"), device=CPU)
    given = blocks()
    question = task_of("mntp", 0.3, MASK, END, [START, END])(given, 7)
    with torch.no_grad():
        loss = nats(backbone, question)
        expected = []
        for row in range(len(given)):
            for part in (slice(0, 6), slice(6, 12)):
                ids, chosen = question.ids[row : row + 1, part], question.chosen[row, part]
                expected.append(backbone.causal_lm(ids, attention_mask=torch.ones_like(ids)).logits[0, chosen])
    by_hand = torch.nn.functional.cross_entropy(torch.cat(expected).float(), question.answers)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_one_document_a_row_in_the_same_order():
    question = task_of("mlm", 0.3, MASK, END, [START, END])(blocks(), 7)
    ids, real, chosen = one_per_row(question.ids, question.positions, question.chosen)
    assert ids.shape == (6, 6) and real.all()
    assert torch.equal(ids[chosen], question.ids[question.chosen])


# Results.

WAYS = [{}, {"objective": "mlm"}, {"objective": "causal"}, {"train": "lora"}, {"unmask": "from:2"}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_learns_and_is_a_base_like_any_other(make_base, adapted, way):
    folder, base = adapted(**way).output, make_base("llama")
    found = record(folder)
    assert found["held_out"]["after"] < found["held_out"]["before"] - 0.1
    losses = [row[2] for row in found["curve"]]
    assert losses[-1] < losses[0]
    assert found["fingerprint"] == fingerprint(folder) != fingerprint(base) == found["base"]["fingerprint"]
    assert f"{found['held_out']['after']:.3f} after" in (folder / "README.md").read_text()
    backbone = load_backbone(BackboneSettings(BaseSettings(str(folder)), "all", LoraSettings(r=2)), device=CPU)
    ids = torch.tensor([backbone.tokenizer(TEXTS[0])["input_ids"]])
    assert backbone.states(ids, torch.ones_like(ids)).shape == (1, ids.shape[1], 32)
    assert load_tokenizer(folder)(TEXTS[0]) == load_tokenizer(base)(TEXTS[0])
    assert not [path.name for path in folder.parent.iterdir() if path.name.endswith("partial")]


@pytest.mark.parametrize("family", sorted({"gpt2", "gemma3_text", "mixtral", "opt"} & set(FAMILIES)))
@pytest.mark.parametrize("train", ["all", "lora"])
def test_every_kind_of_family_comes_back(make_base, text, tmp_path, family, train):
    base = make_base(family)
    settings = quick(train=train, tokens=16 * 4 * 4)
    places = at(text, tmp_path)
    found = adapt(BaseSettings(str(base)), settings, places, CPU)
    assert found["fingerprint"] != fingerprint(base)
    # With none of the adapted weights, the result is the start, whose states these are.
    start = at(text, tmp_path, output=tmp_path / "start")
    adapt(BaseSettings(str(base)), quick(train=train, tokens=16 * 4 * 4, merge=0.0), start, CPU, resume=True)
    states = []
    for folder in (base, start.output):
        backbone = load_backbone(BackboneSettings(BaseSettings(str(folder)), "all"), device=CPU)
        ids = torch.arange(2, 14)[None]
        states.append(backbone.states(ids, torch.ones_like(ids)))
    assert torch.equal(*states)


def test_a_base_that_others_use_stays_as_it_is(make_base, text, tmp_path):
    base = make_base("llama")
    held = load_backbone(BackboneSettings(BaseSettings(str(base))), device=CPU)
    before = {name: value.clone() for name, value in held.model.named_parameters()}
    adapt(BaseSettings(str(base)), quick(tokens=16 * 4 * 2), at(text, tmp_path), CPU)
    assert same(before, dict(held.model.named_parameters()))


@pytest.mark.parametrize("train", ["all", "lora"])
def test_a_merge_at_its_ends_is_exact_and_needs_no_training(make_base, adapted, text, tmp_path, train):
    done, base = adapted(train=train), make_base("llama")
    work = tmp_path / "w"
    shutil.copytree(done.work, work)
    made = {}
    for share in (0.0, 0.5, 1.0):
        places = at(text, tmp_path, output=tmp_path / str(share), work=work)
        found = adapt(BaseSettings(str(base)), quick(train=train, merge=share), places, CPU, resume=True)
        assert len(found["curve"]) == 4 and found["merge"] == share
        made[share] = weights(places.output)
    assert same(made[0.0], weights(base))
    assert same(made[1.0], weights(done.output))
    for name, value in made[0.5].items():
        torch.testing.assert_close(value, (made[0.0][name] + made[1.0][name]) / 2, rtol=1e-5, atol=1e-6)


def test_the_result_has_the_dtype_of_the_start_or_the_one_asked_for(make_base, adapted, text, tmp_path):
    base = tmp_path / "half"
    shutil.copytree(make_base("llama"), base)
    AutoModelForCausalLM.from_pretrained(base, torch_dtype=torch.bfloat16).save_pretrained(base)
    for train in ("all", "lora"):
        for dtype, expected in (("auto", torch.bfloat16), ("float32", torch.float32)):
            places = at(text, tmp_path, output=tmp_path / train / dtype, work=tmp_path / f"{train}.work")
            settings = quick(train=train, tokens=16 * 4 * 2, dtype=dtype)
            adapt(BaseSettings(str(base)), settings, places, CPU, resume=dtype != "auto")
            assert {value.dtype for value in weights(places.output).values()} == {expected}


def test_an_adapter_folder_is_peft_s_and_folds_into_the_base_that_is_made(make_base, adapted, text, tmp_path):
    done, base = adapted(train="lora"), make_base("llama")
    work = tmp_path / "w"
    shutil.copytree(done.work, work)
    places = at(text, tmp_path, work=work)
    adapt(BaseSettings(str(base)), quick(train="lora", output_kind="adapter"), places, CPU, resume=True)
    # The message says why a folder without a base is refused.
    with pytest.raises(BaseError, match=r"contains no base, only a peft adapter.*merge_and_unload"):
        load_backbone(BackboneSettings(BaseSettings(str(places.output))), device=CPU)
    folded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), places.output).merge_and_unload()
    folded.save_pretrained(tmp_path / "folded")
    expected = weights(done.output)
    for name, value in weights(tmp_path / "folded").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_a_quantised_base_is_adapted_with_an_adapter(make_base, text, tmp_path):
    pytest.importorskip("bitsandbytes")
    base, places = make_base("llama"), at(text, tmp_path)
    settings = quick(train="lora", tokens=16 * 4 * 2)
    adapt(BaseSettings(str(base), quantization="nf4"), settings, places, CPU)
    found = weights(places.output)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert found.keys() == weights(base).keys()


# Kills.

# After how many of its own checkpoints each part is killed.
KILLS = (1, 2)


@pytest.fixture(scope="module")
def stopped(make_base, text, tmp_path_factory) -> Path:
    """A folder of runs that were killed."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    folder = tmp_path_factory.mktemp("killed")
    for train, (part, saves) in product(("all", "lora"), enumerate(KILLS)):

        def begin(train=train, part=part, saves=saves):
            adaptation_run.save_checkpoint = dying_after(adaptation_run.save_checkpoint, saves)
            base = BaseSettings(str(make_base("llama")))
            adapt(base, quick(train=train), at(text, folder / train), CPU, resume=part > 0)

        killed(begin)
    return folder


@pytest.mark.any_stack
@pytest.mark.parametrize("train", ["all", "lora"])
def test_killed_and_resumed_is_never_killed(make_base, adapted, stopped, text, train):
    whole, places = adapted(train=train), at(text, stopped / train)
    assert (places.work / "checkpoint.pt").is_file() and not places.output.exists()
    found = adapt(BaseSettings(str(make_base("llama"))), quick(train=train), places, CPU, resume=True)
    assert found["parts"] == len(KILLS) + 1
    assert same(weights(places.output), weights(whole.output))
    expected = record(whole.output)
    assert [row[:-1] for row in found["curve"]] == [row[:-1] for row in expected["curve"]]
    assert found["held_out"] == expected["held_out"]


# The command, and bad input.


def test_from_text_to_a_base(make_base, text, tmp_path):
    base = make_base("llama")
    shown = run("lsbillm", "adapt", base, text, tmp_path / "out", *OPTIONS, "--train", "lora", "--lora.r", 4)
    assert "before:" in shown and "Saved the base in" in " ".join(shown.split())
    assert record(tmp_path / "out")["settings"]["lora"]["r"] == 4
    again = run("lsbillm", "adapt", base, text, tmp_path / "out", *OPTIONS, code=1)
    assert "not empty. It holds a finished run" in " ".join(again.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--objective", "rtd"], "objective = 'rtd' is not allowed: it must be one of mntp, mlm, causal"),
        (["--unmask", "none"], "unmasks no layer"),
        (["--unmask", "none", "--objective", "mlm"], "unmasks no layer"),
        (["--unmask", "0000"], "unmasks no layer"),
        (["--unmask", "all", "--objective", "causal"], "sees the piece that is to be predicted"),
        (["--unmask", "from:9"], "there is no layer 9"),
        (["--mask-share", "0"], "mask_share = 0.0 is not allowed"),
        (["--mask-share", "1"], "mask_share = 1.0 is not allowed"),
        (["--mask-piece", "no such piece"], "mask_piece = 'no such piece' is not a piece"),
        (["--merge", "1.5"], "merge = 1.5 is not allowed: it must be a number from 0 to 1"),
        (["--merge", "-0.1"], "merge = -0.1 is not allowed"),
        (["--quantization", "nf4"], "is quantised (quantization = 'nf4')"),
        (["--train", "some"], "train = 'some' is not allowed"),
        (["--lora.r", "4"], 'train = "all" has no adapter'),
        (["--train", "lora", "--lora.rank", "4"], "lora has no setting 'rank'"),
        (["--train", "lora", "--lora.target_modules", '["nothing"]'], "names 'nothing'"),
        (["--output-kind", "adapter"], 'output_kind = "adapter" is not allowed'),
        (["--train", "lora", "--output-kind", "adapter", "--merge", "0.5"], 'output_kind = "adapter" is not allowed'),
        (["--train", "lora", "--lora.use_dora", "true", "--merge", "0.5"], "such an adapter cannot be scaled"),
        (["--tokens", "10"], "is less than one step of 64 pieces"),
        (["--length", "100"], "more than the 64 positions"),
        (["--rate", "0"], "--rate 0.0 is not allowed"),
        (["--micro-batch", "3"], "a multiple of micro_batch = 3"),
        (["--training.seed", "3"], "there is no option --training.seed"),
        (["--gpu-id", "99"], "torch sees"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(make_base, text, tmp_path, options, said):
    shown = run("lsbillm", "adapt", make_base("llama"), text, tmp_path / "out", *OPTIONS, *options, code=1)
    assert said in " ".join(shown.split())
    assert not list(tmp_path.iterdir())


def refused(base: Path, places: AdaptationPlaces, said: str, error: type[ValueError], resume=False, **settings):
    with pytest.raises(error, match=said):
        adapt(BaseSettings(str(base)), quick(**settings), places, CPU, resume)
    assert not places.output.exists()


def test_text_that_is_too_short(make_base, text, tmp_path):
    base, short = make_base("llama"), tmp_path / "short.txt"
    short.write_text("one\n\ntwo")
    refused(base, at(short, tmp_path), "the text has 2 documents.*--valid", SettingError)
    short.write_text("one")
    said = "fewer than one block of 16. Give more text, or set length lower"
    refused(base, at(short, tmp_path, valid=[text]), f"training text has 4 tokens, {said}", SettingError)
    other = tmp_path / "other"
    refused(base, at(text, other, valid=[short]), f"held-out text has 4 tokens, {said}", SettingError)
    assert not (other / "w" / "checkpoint.pt").exists()


def test_folders_of_others(make_base, adapted, text, tmp_path):
    base, done = make_base("llama"), adapted()
    work = tmp_path / "done"
    shutil.copytree(done.work, work)
    before = (work / "checkpoint.pt").read_bytes()
    elsewhere = at(text, tmp_path, work=work)
    refused(base, elsewhere, "Use --resume to continue", StorageError)
    refused(base, elsewhere, "adaptation.seed was 0 and is 3", StorageError, True, seed=3)
    refused(base, elsewhere, "adaptation.objective was 'mntp'", StorageError, True, objective="mlm")
    # A merge of different bases.
    refused(make_base("llama", seed=1), elsewhere, "sources.base was", StorageError, True, merge=0.5)
    assert (work / "checkpoint.pt").read_bytes() == before
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("precious")
    with pytest.raises(StorageError, match="is not empty"):
        adapt(BaseSettings(str(base)), quick(), at(text, tmp_path, output=full), CPU)
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]
    refused(base, at(text, tmp_path, work=full), "holds something else", StorageError)
    refused(base, at(text, tmp_path), "there is no run in", StorageError, True)


def test_a_tokenizer_without_an_end(make_base, text, tmp_path):
    base = shutil.copytree(make_base("llama"), tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
    (base / "special_tokens_map.json").unlink(missing_ok=True)
    refused(base, at(text, tmp_path), "has no end token", SettingError)
