"""What a stored pipeline contains of its base, and where it finds the rest."""

import json
import re
import shutil
import warnings
from itertools import product

import pytest
import spacy
import torch
from backbones import batch
from peft import PeftModel
from pipelines import backbone, build, examples, same, train, trained, vectors
from safetensors.torch import load_file
from spacy.util import fix_random_seed
from thinc.api import Config
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import spacy_lsbillm
from spacy_lsbillm.backbone import BaseSettings
from spacy_lsbillm.backbone import tensor_files as files
from spacy_lsbillm.backbone.fingerprint import fingerprint, full_digest
from spacy_lsbillm.backbone.location import resolve_folder
from spacy_lsbillm.backbone.merge import write_model
from spacy_lsbillm.backbone.storage import save_backbone
from spacy_lsbillm.cli import app
from spacy_lsbillm.errors import BaseError, SettingError

run = CliRunner()


def call(*arguments):
    return run.invoke(app, [*map(str, arguments)])


def said(result):
    return " ".join(result.output.split())


SOME_MODULES = {"target_modules": r".*\.(1|2)\..*(q_proj|o_proj|c_proj|dense|query_key_value)"}


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        *((family, {}) for family in ("llama", "mistral", "qwen2", "gpt2", "gpt_neox", "gemma3_text")),
        *product(("qwen2", "gpt2"), ({"use_rslora": True}, {"use_dora": True}, SOME_MODULES)),
    ],
)
def test_folding_from_files_is_what_peft_folds(make_base, tmp_path, family, lora):
    nlp = trained(make_base(family), lora=lora)
    held = backbone(nlp)
    save_backbone(held, tmp_path, "reference")
    write_model(held.folder, held.base, (tmp_path / "adapter", held.settings.lora), tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(held.folder)
    expected = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload().state_dict()
    found = load_file(tmp_path / "merged" / "model.safetensors")
    # Checkpoints keep this name, for which transformers 5 has another one.
    if "embed_out.weight" in found and "embed_out.weight" not in expected:
        found["lm_head.weight"] = found.pop("embed_out.weight")
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name
    tied = {"lm_head.weight"} if held.config.tie_word_embeddings else set()
    assert set(expected) - set(found) <= tied
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(loaded(batch(False)[0]).logits, base(batch(False)[0]).logits, atol=1e-4)


def test_the_adapter_can_be_stored_in_half_the_space(make_base, tmp_path):
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        nlp = trained(make_base(), store_adapter=dtype)
        nlp.to_disk(tmp_path / dtype)
        loaded = spacy.load(tmp_path / dtype)
        assert same(vectors(loaded), vectors(nlp), 0 if dtype == "float32" else 0.05)
        assert {parameter.dtype for parameter in backbone(loaded).trainable().values()} == {torch.float32}
        sizes[dtype] = (tmp_path / dtype / "transformer" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert 0.45 < sizes["bfloat16"] / sizes["float32"] < 0.65
    with pytest.raises(SettingError, match="store_adapter = 'int8' is not allowed"):
        build(make_base(), store_adapter="int8")


def test_large_models_are_written_in_parts(make_base, tmp_path, monkeypatch):
    base = make_base("llama")
    monkeypatch.setattr("spacy_lsbillm.backbone.merge.write_tensors", lambda *a: files.write_tensors(*a, 30_000))
    write_model(base, BaseSettings(str(base)), None, tmp_path / "parts")
    parts = sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors"))
    assert len(parts) > 3 and parts[0] == f"model-00001-of-{len(parts):05}.safetensors"
    assert all((tmp_path / "parts" / name).stat().st_size < 60_000 for name in parts)
    assert fingerprint(tmp_path / "parts") == fingerprint(base)
    assert full_digest(tmp_path / "parts") == full_digest(base)
    one, other = (AutoModelForCausalLM.from_pretrained(folder) for folder in (base, tmp_path / "parts"))
    assert torch.equal(one(batch(False)[0]).logits, other(batch(False)[0]).logits)


@pytest.mark.parametrize(("quantization", "family"), [("nf4", "llama"), ("fp4", "mistral"), ("int8", "qwen2")])
def test_quantised_bases_train_save_and_load(make_base, tmp_path, family, quantization):
    nlp = trained(make_base(family), steps=3, quantization=quantization)
    fresh = build(make_base(family), quantization=quantization)
    fresh.initialize(lambda: examples(fresh))
    assert not same(vectors(nlp), vectors(fresh), 1e-3), "it has not learned"
    nlp.to_disk(tmp_path / "reference")
    assert call("merge", tmp_path / "reference", tmp_path / "copy", "--store-base", "copy").exit_code == 0
    for stored in ("reference", "copy"):
        loaded = spacy.load(tmp_path / stored)
        assert backbone(loaded).base.quantization == quantization
        assert same(vectors(loaded), vectors(nlp), 1e-4)
    # The adapter is merged into the unquantised base, so the difference is the error of quantization.
    assert call("merge", tmp_path / "reference", tmp_path / "merged").exit_code == 0
    plain = {"components": {"transformer": {"model": {"quantization": None}}}}
    merged, unquantised = (
        spacy.load(tmp_path / "merged", config=plain),
        spacy.load(tmp_path / "reference", config=plain),
    )
    assert same(vectors(merged), vectors(unquantised), 1e-3)


@pytest.mark.parametrize(
    ("trained_with", "loaded_with"), [(None, "nf4"), (None, "int8"), ("nf4", None), ("int8", "fp4")]
)
def test_quantisation_is_chosen_at_load(make_base, tmp_path, trained_with, loaded_with):
    nlp = trained(make_base(), quantization=trained_with)
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(
        tmp_path / "pipeline", config={"components": {"transformer": {"model": {"quantization": loaded_with}}}}
    )
    kinds = {type(module).__name__ for module in backbone(loaded).causal_lm.modules()}
    assert ("Linear4bit" in kinds) == (loaded_with in ("nf4", "fp4")), kinds
    assert ("Linear8bitLt" in kinds) == (loaded_with == "int8"), kinds
    for (name, one), (_, other) in zip(
        backbone(nlp).trainable().items(), backbone(loaded).trainable().items(), strict=True
    ):
        assert torch.equal(one, other), name
    correlation = torch.corrcoef(torch.stack([torch.tensor(vectors(one)[0]).flatten() for one in (nlp, loaded)]))
    assert correlation[0, 1] > 0.9


@pytest.mark.parametrize("depth", [None, 2])
def test_a_pipeline_is_converted_without_loading_a_model(make_base, tmp_path, depth):
    nlp = trained(make_base(), depth=depth)
    nlp.to_disk(tmp_path / "reference")
    expected = vectors(nlp)
    for source, target in (("reference", "copy"), ("copy", "reference"), ("reference", "merged"), ("copy", "merged")):
        output = tmp_path / f"{source} to {target}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AutoModelForCausalLM, "from_pretrained", None)
            result = call("merge", tmp_path / source, output, "--store-base", target)
        assert result.exit_code == 0, result.output
        loaded = spacy.load(output)
        assert loaded.config["components"]["transformer"]["model"]["store_base"] == target
        assert same(vectors(loaded), expected, 1e-4)
        if target == "copy":
            shutil.copytree(output, tmp_path / "copy")
    record = json.loads((tmp_path / "reference" / "transformer" / "billm.json").read_text(encoding="utf8"))
    back = json.loads((tmp_path / "copy to reference" / "transformer" / "billm.json").read_text(encoding="utf8"))
    assert back == record
    if depth:
        stored = load_file(tmp_path / "copy" / "transformer" / "base" / "model.safetensors")
        assert not any(".2." in name or ".3." in name for name in stored)


def test_a_shallow_copy_names_the_whole_base_when_it_is_saved_again(make_base, tmp_path):
    nlp = trained(make_base(), depth=2, store_base="copy")
    nlp.to_disk(tmp_path / "one")
    spacy.load(tmp_path / "one").to_disk(tmp_path / "two")
    assert call("merge", tmp_path / "two", tmp_path / "reference", "--store-base", "reference").exit_code == 0
    assert same(vectors(spacy.load(tmp_path / "reference")), vectors(nlp), 1e-5)


def test_merge_says_what_it_cannot_do(make_base, tmp_path):
    trained(make_base(), store_base="merged").to_disk(tmp_path / "merged")
    assert "its adapter is part of the weights" in said(
        call("merge", tmp_path / "merged", tmp_path / "x", "--store-base", "copy")
    )
    assert "Use one of: reference, copy, merged" in said(
        call("merge", tmp_path / "merged", tmp_path / "x", "--store-base", "both")
    )
    for name in ("no_such", "./no/such", "numpy"):
        assert f"neither a folder nor an installed pipeline '{name}'" in said(call("merge", name, tmp_path / "x"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert "Name another folder" in said(call("save", tmp_path / "merged", tmp_path / "mine"))
    assert not (tmp_path / "x").exists()


def test_save_copies_what_is_whole(make_base, tmp_path):
    nlp = trained(make_base())
    nlp.to_disk(tmp_path / "pipeline")
    assert call("save", tmp_path / "pipeline", tmp_path / "safe").exit_code == 0
    assert same(vectors(spacy.load(tmp_path / "safe")), vectors(nlp))
    weights = tmp_path / "pipeline" / "transformer" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    result = call("save", tmp_path / "pipeline", tmp_path / "safe")
    assert result.exit_code == 1 and "adapter_model.safetensors is altered" in said(result)
    assert same(vectors(spacy.load(tmp_path / "safe")), vectors(nlp))


def moved(make_base, tmp_path):
    """A reference whose base has been moved."""
    shutil.copytree(make_base("llama", seed=9), tmp_path / "base")
    nlp = trained(tmp_path / "base")
    nlp.to_disk(tmp_path / "pipeline")
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    return nlp


def test_a_map_says_where_bases_are(make_base, tmp_path, monkeypatch):
    nlp = moved(make_base, tmp_path)
    with pytest.raises(BaseError, match="SPACY_LSBILLM_BASES"):
        spacy.load(tmp_path / "pipeline")
    places = tmp_path / "bases.json"
    monkeypatch.setenv("SPACY_LSBILLM_BASES", str(places))
    with pytest.raises(SettingError, match=r"SPACY_LSBILLM_BASES = .* cannot be read"):
        spacy.load(tmp_path / "pipeline")
    # Relative folders are relative to the file.
    places.write_text(json.dumps({str(tmp_path / "base"): "elsewhere"}), encoding="utf8")
    assert same(vectors(spacy.load(tmp_path / "pipeline")), vectors(nlp))
    places.write_text(json.dumps({str(tmp_path / "base"): "nowhere"}), encoding="utf8")
    monkeypatch.setattr("spacy_lsbillm.backbone.seen_bases._folders", {})
    with pytest.raises(BaseError, match="there is no such folder"):
        spacy.load(tmp_path / "pipeline")
    places.write_text(json.dumps({str(tmp_path / "base"): str(make_base("llama"))}), encoding="utf8")
    with pytest.raises(BaseError, match="is not the one this pipeline was trained on"):
        spacy.load(tmp_path / "pipeline")


def test_verify_reads_the_whole_base(make_base, tmp_path):
    moved(make_base, tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "base")
    result = call("verify", tmp_path / "pipeline")
    assert result.exit_code == 0 and "every byte of" in said(result) and "every file is as it was" in said(result)
    # Change a byte outside of all sampled blocks.
    weights = tmp_path / "base" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    tensor = max(files.stored_tensors(tmp_path / "base").values(), key=lambda tensor: tensor.end - tensor.begin)
    content[tensor.begin + 5000] ^= 1
    weights.write_bytes(content)
    assert spacy.load(tmp_path / "pipeline"), "the fingerprint cannot see it"
    result = call("verify", tmp_path / "pipeline")
    assert result.exit_code == 1 and "are altered" in said(result)
    assert call("verify", tmp_path / "pipeline", "--base", make_base("llama", seed=9)).exit_code == 0
    result = call("verify", tmp_path / "pipeline", "--base", make_base("llama"))
    assert result.exit_code == 1 and "holds another base" in said(result)


@pytest.mark.parametrize("damaged", ["transformer/billm.json", "ner/model", "meta.json"])
def test_verify_names_what_is_damaged(make_base, tmp_path, damaged):
    trained(make_base(), store_base="copy").to_disk(tmp_path / "pipeline")
    assert "its base is inside (copy)" in said(call("verify", tmp_path / "pipeline"))
    path = tmp_path / "pipeline" / damaged
    path.write_bytes(path.read_bytes()[:20])
    assert call("verify", tmp_path / "pipeline").exit_code == 1


def test_meta_lists_the_base_and_its_licence(make_base, tmp_path):
    base = shutil.copytree(make_base("llama"), tmp_path / "licensed")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n", encoding="utf8")
    fix_random_seed(0)
    nlp = build(base, store_base="copy")
    train(nlp)
    nlp.to_disk(tmp_path / "pipeline")
    meta = json.loads((tmp_path / "pipeline" / "meta.json").read_text(encoding="utf8"))
    assert meta["sources"] == [{"name": str(base), "url": "", "license": "apache-2.0"}]
    # The card is copied with the weights.
    assert (tmp_path / "pipeline" / "transformer" / "base" / "README.md").is_file()


@pytest.fixture(scope="module")
def licensed(make_base, tmp_path_factory):
    """A trained pipeline over a base with a licence, its folder, and the entry of the base in its meta."""
    root = tmp_path_factory.mktemp("licensed")
    base = shutil.copytree(make_base("llama"), root / "base")
    (base / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\nA model.\n", encoding="utf8")
    trained(base).to_disk(root / "pipeline")
    return root / "pipeline", [{"name": str(base), "url": "", "license": "cc-by-sa-4.0"}]


def sourced(path):
    source, nlp = spacy.load(path), spacy.blank("xx")
    for name in ("transformer", "ner"):
        nlp.add_pipe(name, source=source)
    return nlp


def assembled(path):
    components = {name: {"source": str(path)} for name in ("transformer", "ner")}
    config = {"nlp": {"lang": "xx", "pipeline": ["transformer", "ner"]}, "components": components}
    return spacy.util.load_model_from_config(Config(config), auto_fill=True)


def trained_on(path):
    nlp = assembled(path)
    optimizer = nlp.resume_training()
    nlp.update(examples(nlp), sgd=optimizer)
    return nlp


def of_old(path):
    nlp = spacy.load(path)
    del nlp.meta["sources"]
    return nlp


@pytest.mark.parametrize("way", [sourced, assembled, trained_on, of_old])
def test_the_licence_of_a_base_goes_with_its_transformer(licensed, tmp_path, way):
    path, sources = licensed
    nlp = way(path)
    for time in ("once", "again"):
        nlp.to_disk(tmp_path / time)
        nlp = spacy.load(tmp_path / time)
        assert nlp.meta["sources"] == sources
    # A meta.json beside a component that is saved alone does not belong to it.
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "meta.json").write_text('{"components": ["ner"]}', encoding="utf8")
    nlp.get_pipe("transformer").to_disk(tmp_path / "alone" / "transformer")
    assert "sources" not in json.loads((tmp_path / "alone" / "meta.json").read_text(encoding="utf8"))


def test_save_names_the_base_of_a_component_that_has_its_own(licensed, tmp_path):
    path, sources = licensed
    source, nlp = spacy.load(path), spacy.blank("xx")
    source.replace_listeners("transformer", "ner", ["model.tok2vec"])
    nlp.add_pipe("ner", source=source)
    spacy_lsbillm.save(nlp, tmp_path / "p")
    assert spacy.load(tmp_path / "p").meta["sources"] == sources


@pytest.mark.parametrize("store_base", ["reference", "copy"])
def test_a_base_that_a_command_has_made_can_be_made_again(make_base, tmp_path, monkeypatch, store_base):
    command = "python -m spacy lsbillm import-gguf --package tiny-model==1.0 FOLDER"
    base = shutil.copytree(make_base("llama"), tmp_path / "made")
    (base / "origin.json").write_text(json.dumps({"made_with": command}), encoding="utf8")
    fix_random_seed(0)
    nlp = build(base, store_base=store_base)
    train(nlp)
    nlp.to_disk(tmp_path / "pipeline")
    meta = json.loads((tmp_path / "pipeline" / "meta.json").read_text(encoding="utf8"))
    assert meta["sources"] == [{"name": str(base), "url": "", "license": "", "made_with": command}]
    expected = vectors(nlp)
    del nlp
    base.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("spacy_lsbillm.backbone.seen_bases._folders", {})
    if store_base == "copy":
        # It needs no other base.
        assert "notes" not in meta
        assert same(vectors(spacy.load(tmp_path / "pipeline")), expected)
        return
    assert command in meta["notes"] and "SPACY_LSBILLM_BASES" in meta["notes"]
    with pytest.raises(BaseError, match=r"no folder .* made again with: ") as caught:
        spacy.load(tmp_path / "pipeline")
    assert command in str(caught.value) and "hub" not in str(caught.value)
    bases = tmp_path / "bases.json"
    bases.write_text(json.dumps({str(base): "elsewhere"}), encoding="utf8")
    monkeypatch.setenv("SPACY_LSBILLM_BASES", str(bases))
    again = spacy.load(tmp_path / "pipeline")
    assert same(vectors(again), expected)
    # Noted only once, however often it is trained.
    train(again)
    assert again.meta["notes"].count(command) == 1


def test_a_base_of_the_hub_is_named_by_its_commit(make_base, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshots = tmp_path / "hub" / "models--org--tiny" / "snapshots"
    shutil.copytree(make_base("llama"), snapshots / commit)
    (snapshots.parent / "refs").mkdir()
    (snapshots.parent / "refs" / "main").write_text(commit, encoding="utf8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    nlp = trained("org/tiny")
    nlp.to_disk(tmp_path / "pipeline")
    source = nlp.meta["sources"][0]
    assert source["revision"] == commit and source["url"] == "https://huggingface.co/org/tiny"
    # The branch has moved to another commit; the pipeline has not.
    other = commit[::-1]
    shutil.copytree(make_base("llama", seed=1), snapshots / other)
    (snapshots.parent / "refs" / "main").write_text(other, encoding="utf8")
    monkeypatch.setattr("spacy_lsbillm.backbone.seen_bases._folders", {})
    assert same(vectors(spacy.load(tmp_path / "pipeline")), vectors(nlp))


def test_an_interrupted_download_is_taken_up_again(make_base, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / commit
    shutil.copytree(make_base("llama"), snapshot)
    asked = []

    def download(name, local_files_only=False, **more):
        asked.append(local_files_only)
        if not local_files_only:
            shutil.copy(make_base("llama") / "model.safetensors", snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_folder("org/tiny", commit) == snapshot
    assert asked == [True]
    (snapshot / "model.safetensors").unlink()
    assert resolve_folder("org/tiny", commit) == snapshot
    assert asked == [True, True, False] and (snapshot / "model.safetensors").is_file()


@pytest.mark.parametrize("store_base", ["copy", "merged"])
def test_a_pipeline_never_takes_up_another_base(make_base, tmp_path, store_base):
    nlp = trained(make_base("llama"))
    nlp.to_disk(tmp_path / "pipeline")
    other = make_base("llama", seed=1)
    result = call("merge", tmp_path / "pipeline", tmp_path / "out", "--store-base", store_base, "--base", other)
    assert result.exit_code == 1 and "is not the one this pipeline was trained on" in said(result)
    assert not (tmp_path / "out").exists()


def test_a_base_that_was_replaced_while_in_use_is_not_stored(make_base, tmp_path):
    # No other test has loaded a base with these weights, because a copy in memory would be used.
    nlp = trained(shutil.copytree(make_base("llama", seed=7), tmp_path / "base"), store_base="copy")
    shutil.copy(make_base("llama", seed=1) / "model.safetensors", tmp_path / "base")
    with pytest.raises(BaseError, match="which no longer exists"):
        nlp.to_disk(tmp_path / "pipeline")
    assert not (tmp_path / "pipeline" / "transformer").exists()


def test_a_pipeline_outlives_the_folder_it_was_loaded_from(make_base, tmp_path):
    """`spacy train` empties its output folder, which may contain the pipeline that training starts from."""
    nlp = trained(make_base("llama"), store_base="copy")
    nlp.to_disk(tmp_path / "pipeline")
    loaded = spacy.load(tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "pipeline")
    loaded.to_disk(tmp_path / "pipeline")
    assert same(vectors(spacy.load(tmp_path / "pipeline")), vectors(nlp))


def test_a_folder_that_holds_another_base_by_now_is_not_taken(make_base, tmp_path):
    name = shutil.copytree(make_base("llama"), tmp_path / "base")
    nlp = trained(name)
    nlp.to_disk(tmp_path / "pipeline")
    before = vectors(nlp)
    # Loaded from another folder, which is then overwritten.
    elsewhere = shutil.copytree(name, tmp_path / "elsewhere")
    settings = {"components": {"transformer": {"model": {"name": str(elsewhere)}}}}
    spacy.load(tmp_path / "pipeline", config=settings)
    shutil.copy(make_base("llama", seed=1) / "model.safetensors", elsewhere)
    assert same(vectors(spacy.load(tmp_path / "pipeline")), before)


def test_bases_that_differ_in_their_config_alone_are_told_apart(make_base, tmp_path):
    """The same weights with other rotation angles."""
    base = shutil.copytree(make_base("llama"), tmp_path / "base")
    stretched = shutil.copytree(base, tmp_path / "stretched")
    said_before = json.loads((base / "config.json").read_text(encoding="utf8"))
    # In the notation of transformers 4, which transformers 5 also reads.
    said_before.pop("rope_parameters", None)
    (stretched / "config.json").write_text(json.dumps({**said_before, "rope_theta": 2.0}), encoding="utf8")
    nlp = trained(stretched)
    nlp.to_disk(tmp_path / "pipeline")
    # The base that was seen last is another one.
    assert not same(vectors(trained(base)), vectors(nlp))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert same(vectors(spacy.load(tmp_path / "pipeline")), vectors(nlp))
    shutil.copy(base / "config.json", stretched)
    with pytest.warns(UserWarning, match=r"rope_\w+ = .*, was .*2\.0.*\. Results will differ"):
        spacy.load(tmp_path / "pipeline")
    result = call("verify", tmp_path / "pipeline")
    assert result.exit_code == 1 and re.search(r", was .*2\.0", said(result))


def test_upper_layers_are_not_read(make_base, tmp_path):
    """A base whose upper layers are zero bytes on disk gives the same vectors at a smaller depth."""
    base = shutil.copytree(make_base("llama"), tmp_path / "base")
    nlp = trained(base, depth=2)
    whole = vectors(nlp)
    for name, tensor in files.stored_tensors(base).items():
        if ".2." in name or ".3." in name:
            with tensor.path.open("r+b") as file:
                file.seek(tensor.begin)
                file.write(b"\xff" * (tensor.end - tensor.begin))
    again = trained(base, depth=2)
    assert same(vectors(again), whole)
    assert len(backbone(again).causal_lm.model.layers) == 2
