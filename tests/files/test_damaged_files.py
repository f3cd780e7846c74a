"""Files that were changed by accident or on purpose: refused by name, or read as before.

These are the kinds of damage in `python -m benchmarks.reliability --parts corruptions` that were not detected.
"""

import json
import os
import shutil
import struct
import zipfile

import numpy as np
import pytest
import spacy
import srsly
import torch
from pipelines import LISTENER, build
from tiny import TEXTS

from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, load_backbone
from spacy_lsbillm.backbone.tokenizer import load_tokenizer
from spacy_lsbillm.errors import BaseError, StorageError
from spacy_lsbillm.files import SEAL, parse_json, write_seal
from spacy_lsbillm.pretraining import PretrainingSettings, pretrain, run
from spacy_lsbillm.pretraining.places import BEGUN
from spacy_lsbillm.pretraining.run import Places

pytestmark = pytest.mark.any_stack

CPU = torch.device("cpu")
HEADS = {"ents": {}, "spans": {"scheme": "iob2", "spans_key": "sc"}}


@pytest.fixture(scope="module")
def saved(make_base, tmp_path_factory):
    """A saved pipeline with a labeler of each kind."""
    nlp = build(make_base(), heads=())
    for name, settings in HEADS.items():
        model = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": LISTENER}
        nlp.add_pipe("sequence_labeler", name=name, config={"model": model, **settings}).add_label("city")
    nlp.initialize()
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    nlp.to_disk(folder)
    return folder, nlp


@pytest.fixture
def pipeline(saved, tmp_path):
    """A copy of the saved pipeline, to be damaged."""
    return shutil.copytree(saved[0], tmp_path / "pipeline")


@pytest.fixture
def read(saved, pipeline):
    """read(component): load the pipeline with `spacy.load`."""
    return lambda component: saved[1].get_pipe(component).from_disk(pipeline / component, exclude=["vocab"])


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(bytes(content))


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE = {
    "altered": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": lambda path: path.unlink(),
    "a folder": replace_by_folder,
    "without end": replace_by_device,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["cfg", "model"])
@pytest.mark.parametrize("component", [*HEADS, "transformer"])
def test_each_file_of_each_component(pipeline, read, component, name, damage):
    path = pipeline / component / ("billm.json" if (component, name) == ("transformer", "model") else name)
    DAMAGE[damage](path)
    with pytest.raises(StorageError, match=path.name):
        read(component)


@pytest.mark.parametrize("damage", ["altered", "cut", "a folder", "without end"])
@pytest.mark.parametrize("component", [*HEADS, "transformer"])
def test_the_list_of_files_itself(pipeline, read, component, damage):
    DAMAGE[damage](pipeline / component / SEAL)
    with pytest.raises(StorageError, match=SEAL):
        read(component)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"[]", b'{"labels": ["a", "b"], "scheme": "biluo", "spans_key": null}']
)
@pytest.mark.parametrize("name", ["cfg", "model"])
@pytest.mark.parametrize("component", HEADS)
def test_nonsense_that_is_listed(pipeline, read, component, name, content):
    (pipeline / component / name).write_bytes(content)
    write_seal(pipeline / component)
    with pytest.raises(StorageError, match=f"{component} cannot be read"):
        read(component)


def test_a_labeler_of_an_older_version_has_no_list(pipeline):
    for name in HEADS:
        (pipeline / name / SEAL).unlink()
    assert [len(doc) for doc in spacy.load(pipeline).pipe(TEXTS)]


@pytest.mark.parametrize("name", ["added_tokens.json", "adapter_model.bin", "more.py"])
def test_what_was_put_beside_the_files_of_a_tokenizer_or_an_adapter(pipeline, read, name):
    (pipeline / "transformer" / "tokenizer" / "NOTES.md").write_text("mine")
    (pipeline / "transformer" / "note.json").write_text("{}")
    read("transformer")
    (pipeline / "transformer" / "tokenizer" / name).write_text('{"play": 5}')
    with pytest.raises(StorageError, match=f"{name} was added"):
        read("transformer")


def altered(files, name):
    files[name] = [bytes([files[name][0][0] ^ 1]) + files[name][0][1:]]


def renamed(to):
    def rename(files, name):
        files[to] = files.pop(name)

    return rename


def changed(value):
    return lambda files, name: files.update({name: value})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (altered, "billm.json is altered"),
        (lambda files, name: files.pop(name), "billm.json is missing"),
        *(
            (renamed(name), "not trusted|cannot be written")
            for name in ("../x", "/x", "", ".", "a/../..", "a\0", "x" * 999)
        ),
        *((changed(value), "does not contain the files") for value in (None, 1, "x", [1], [None], {})),
    ],
)
def test_a_message(saved, damage, said):
    transformer = saved[1].get_pipe("transformer")
    parts = srsly.msgpack_loads(transformer.to_bytes())
    files = srsly.msgpack_loads(parts["model"])
    damage(files, "billm.json")
    with pytest.raises(StorageError, match=said):
        transformer.from_bytes(srsly.msgpack_dumps({**parts, "model": srsly.msgpack_dumps(files)}))
    for content in (b"", b"\xc1", parts["model"][:-9], srsly.msgpack_dumps([1])):
        with pytest.raises(StorageError, match="the message"):
            transformer.from_bytes(srsly.msgpack_dumps({**parts, "model": content}))


@pytest.fixture
def base(make_base, tmp_path):
    return shutil.copytree(make_base(), tmp_path / "base")


def load(folder):
    return load_backbone(BackboneSettings(BaseSettings(str(folder)), "all", None), device=CPU)


def in_header(change):
    def damage(folder):
        path = folder / "model.safetensors"
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        encoded = change(header)
        encoded = json.dumps(header).encode() if encoded is None else encoded
        path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + size :])

    return damage


def in_config(key, value):
    def damage(folder):
        said = json.loads((folder / "config.json").read_text(encoding="utf8"))
        (folder / "config.json").write_text(json.dumps({**said, key: value}))

    return damage


def entry(**values):
    return in_header(lambda header: header["model.norm.weight"].update(values))


NESTED = b'{"a":' * 100_000
BAD_BASES = {
    "deep config": (lambda folder: (folder / "config.json").write_bytes(NESTED), r"config\.json.*nested too deep"),
    "deep header": (in_header(lambda header: NESTED), r"model\.safetensors.*nested too deep"),
    "deep list of files": (
        lambda folder: [
            (folder / "model.safetensors").rename(folder / "a.safetensors"),
            (folder / "model.safetensors.index.json").write_bytes(NESTED),
        ],
        r"model\.safetensors\.index\.json",
    ),
    "list of files that is none": (
        lambda folder: [
            (folder / "model.safetensors").rename(folder / "a.safetensors"),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 1}}'),
        ],
        r"model\.safetensors\.index\.json",
    ),
    "list of files elsewhere": (
        lambda folder: [
            (folder / "model.safetensors").rename(folder.parent / "a.safetensors"),
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a.safetensors"}}'),
        ],
        r"model\.safetensors\.index\.json.*\.\./a\.safetensors",
    ),
    "larger dtype": (entry(dtype="F64"), r"model\.safetensors.*model\.norm\.weight"),
    "other dtype": (entry(dtype="F8_E4M3"), "base cannot be loaded"),
    "no dtype": (entry(dtype="X"), "base cannot be loaded"),
    "negative place": (entry(data_offsets=[-128, 0]), r"model\.safetensors.*model\.norm\.weight"),
    "huge shape": (entry(shape=[2**62]), r"model\.safetensors.*model\.norm\.weight"),
    "no entry": (in_header(lambda header: header.update({"model.norm.weight": None})), r"model\.safetensors"),
    "device": (
        lambda folder: replace_by_device(folder / "tokenizer_config.json"),
        r"tokenizer_config\.json is not a file",
    ),
    "pipe": (
        lambda folder: [(folder / "tokenizer.json").unlink(), os.mkfifo(folder / "tokenizer.json")],
        r"tokenizer\.json is not a file",
    ),
    "no width": (in_config("hidden_size", True), r"config\.json"),
    "no layers": (in_config("num_hidden_layers", "x"), r"config\.json"),
    "a thousand million layers": (in_config("num_hidden_layers", 10**9), r"config\.json.*num_hidden_layers"),
    "endless width": (in_config("hidden_size", 10**30), r"config\.json"),
    "no heads": (in_config("num_attention_heads", 0), r"config\.json"),
}


@pytest.mark.parametrize("name", BAD_BASES)
def test_a_base(base, name):
    damage, said = BAD_BASES[name]
    damage(base)
    with pytest.raises(BaseError, match=said):
        load(base)


def test_code_beside_a_tokenizer_is_not_run_even_if_someone_says_yes(base, tmp_path, monkeypatch):
    said = json.loads((base / "tokenizer_config.json").read_text(encoding="utf8"))
    said |= {"auto_map": {"AutoTokenizer": ["planted.Planted", "planted.Planted"]}, "tokenizer_class": "Planted"}
    (base / "tokenizer_config.json").write_text(json.dumps(said))
    mark = tmp_path / "mark"
    (base / "planted.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Planted: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(BaseError, match="tokenizer"):
        load_tokenizer(base)
    assert not mark.exists()


def test_json_that_is_nested_too_deep():
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 100_000)
    assert parse_json(b'{"a": [1]}') == {"a": [1]}


SETTINGS = PretrainingSettings.read(
    {
        "tokenizer": {"vocab_size": 280, "every": 1},
        "model": {"layers": 1, "width": 16, "heads": 2, "key_value_heads": 1, "feed_forward": 16, "positions": 16},
        "training": {"tokens": 16 * 2 * 4, "batch": 2, "micro_batch": 2, "checkpoint_every": 2, "precision": "float32"},
    }
)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The work folder of a run that was stopped, and its text."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "text.txt").write_text("\n\n".join(TEXTS * 8), encoding="utf8")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        save = run.save_checkpoint
        patch.setattr(run, "save_checkpoint", lambda *args: (save(*args), 1 / 0))
        go_on(folder / "work", folder / "text.txt", folder / "model", resume=False)
    return folder


def go_on(work, text, output, resume=True):
    pretrain(SETTINGS, Places([text], [text], output, work), CPU, resume=resume)
    return (output / "model.safetensors").read_bytes()


@pytest.mark.parametrize("damage", ["altered", "cut", "longer", "missing", "a folder", "without end"])
@pytest.mark.parametrize("name", ["training.tokens", "held-out.tokens", "tokenizer/tokenizer.json", SEAL])
def test_what_a_run_goes_on_with(stopped, tmp_path, name, damage):
    work = shutil.copytree(stopped / "work", tmp_path / "work")
    DAMAGE[damage](work / name)
    if name == SEAL and damage == "missing":
        go_on(work, stopped / "text.txt", tmp_path / "model")
        return
    with pytest.raises(StorageError, match=(work / name).name.replace(".", r"\.")):
        go_on(work, stopped / "text.txt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_every_part_of_a_checkpoint(stopped, tmp_path):
    """`torch.load` does not check the checksums that `torch.save` writes."""
    work = shutil.copytree(stopped / "work", tmp_path / "work")
    path = work / "checkpoint.pt"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        parts = [info for info in archive.infolist() if info.file_size]
    assert len(parts) > 30
    rng = np.random.default_rng(0)
    for part in parts:
        # The data of a part follow its name and padding, whose lengths are in the header.
        name, padding = struct.unpack("<HH", whole[part.header_offset + 26 : part.header_offset + 30])
        flip(path, part.header_offset + 30 + name + padding + int(rng.integers(part.file_size)))
        with pytest.raises(StorageError, match=r"checkpoint\.pt cannot be read"):
            go_on(work, stopped / "text.txt", tmp_path / "model")
        path.write_bytes(whole)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_a_run_was_begun_with(stopped, tmp_path, damage):
    work = shutil.copytree(stopped / "work", tmp_path / "work")
    DAMAGE[damage](work / BEGUN)
    if damage == "cut":
        # Cut off more than the last character, which is a line break.
        (work / BEGUN).write_bytes((work / BEGUN).read_bytes()[:-2])
    with pytest.raises(StorageError, match=rf"settings\.json|{work}"):
        go_on(work, stopped / "text.txt", tmp_path / "model")


@pytest.mark.parametrize("content", [{}, {"settings": {}}, {"settings": SETTINGS.as_sections(), "model": {}}, [1]])
def test_a_checkpoint_of_something_else(stopped, tmp_path, content):
    work = shutil.copytree(stopped / "work", tmp_path / "work")
    torch.save(content, work / "checkpoint.pt")
    with pytest.raises(StorageError, match=r"checkpoint\.pt"):
        go_on(work, stopped / "text.txt", tmp_path / "model")


@pytest.mark.parametrize("damage", ["a folder", "without end"])
def test_no_file_in_place_of_a_checkpoint(stopped, tmp_path, damage):
    work = shutil.copytree(stopped / "work", tmp_path / "work")
    DAMAGE[damage](work / "checkpoint.pt")
    with pytest.raises(StorageError, match=r"checkpoint\.pt"):
        go_on(work, stopped / "text.txt", tmp_path / "model")


def test_a_folder_is_sealed_file_by_file(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    write_seal(tmp_path, [tmp_path / "a"])
    assert os.listdir(tmp_path) and "  b\n" not in (tmp_path / SEAL).read_text()
    assert f"{SEAL}.partial" not in os.listdir(tmp_path)
