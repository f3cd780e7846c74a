"""`lsbillm annotate`: each document once, as `nlp.pipe` annotates it, whatever it contains and whatever is killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import spacy
from corpora import run
from heads import corpus, fit, labeler, textcat
from hypothesis import given
from hypothesis import strategies as st
from pipelines import build, trained
from spacy.tokens import Doc, DocBin
from tiny import TEXTS

from spacy_lsbillm import cluster
from spacy_lsbillm.annotation import AnnotationSettings, RunSettings
from spacy_lsbillm.annotation import run as annotation_run
from spacy_lsbillm.annotation.batches import Shard, cut_batches, cut_shards
from spacy_lsbillm.annotation.sources import Item, Line
from spacy_lsbillm.errors import SettingError

pytestmark = [pytest.mark.any_stack, pytest.mark.usefixtures("fork_server")]

# How a component reacts to one of these words in a text; "once" leaves a file behind and works from then on.
CODE = """
import os
import time
from pathlib import Path

from spacy.language import Language
from spacy.tokens import SpanGroup


@Language.component("odd")
def odd(doc):
    for word in doc.text.split():
        if word == "raises":
            raise ValueError("it raises")
        if word == "dies":
            os._exit(3)
        if word == "loses-the-gpu":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if word.startswith("once:") and not Path(word[5:]).exists():
            Path(word[5:]).touch()
            os.kill(os.getpid(), 9)
        if word == "infinite":
            doc.cats["odd"] = float("nan")
        if word == "endless":
            time.sleep(600)
        if word == "slow":
            time.sleep(0.05)
    doc.cats.setdefault("odd", len(doc) / 100)
    doc.spans["first"] = SpanGroup(doc, name="first", spans=[doc[:1]] if len(doc) else [])
    doc.spans["first"].attrs["scores"] = [0.5] * len(doc.spans["first"])
    doc._.trf_data = None
    return doc
"""
WORDS = ("the", "city", "of", "Paris", "or", "Rome", "is", "far", "away")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a rule-based pipeline and the code that it needs."""
    folder = tmp_path_factory.mktemp("annotate")
    (folder / "code.py").write_text(CODE)
    spacy.util.import_file("code", folder / "code.py")
    nlp = spacy.blank("xx")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "city", "pattern": name} for name in ("Paris", "Rome")])
    nlp.add_pipe("odd")
    nlp.to_disk(folder / "pipeline")
    return folder


@pytest.fixture(scope="module")
def nlp(place):
    return spacy.load(place / "pipeline")


def texts(number):
    return [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(i % 11 + 1)) for i in range(number)]


def write_jsonl(path, records):
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def annotate(place, source, output, *more, code=0):
    """Run the command with two processes and small batches."""
    command = ["lsbillm", "annotate", place / "pipeline", source, output, "--code", place / "code.py", "--quiet"]
    if "-n" not in more:
        command += ["-n", 2]
    # The longest word of a message must not be broken.
    return " ".join(run(*command, "--batch-size", 8, "--shard-size", 20, *more, code=code).split())


def written(output):
    """The lines of all shards, in order."""
    paths = sorted((output / "shards").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf8").splitlines()]


def failures(output):
    return {
        failure["place"].rpartition(":")[2]: (failure["id"], failure["error"])
        for failure in map(json.loads, (output / "failures.jsonl").read_text(encoding="utf8").splitlines())
    }


def said(doc, id_):
    """The record that must be written for a document."""
    ents = [(ent.start_char, ent.end_char, ent.label_, ent._.ent_score) for ent in doc.ents]
    groups = {
        key: [(s.start_char, s.end_char, s.label_, x) for s, x in zip(group, group.attrs["scores"], strict=True)]
        for key, group in doc.spans.items()
    }
    names = ("start", "end", "label", "score")
    return {
        "id": id_,
        "text": doc.text,
        "ents": [dict(zip(names, ent, strict=True)) for ent in ents],
        "cats": doc.cats,
        "spans": {key: [dict(zip(names, span, strict=True)) for span in group] for key, group in groups.items()},
    }


def expected(nlp, ids_and_texts):
    return [said(doc, id_) for doc, id_ in nlp.pipe(((text, id_) for id_, text in ids_and_texts), as_tuples=True)]


# Files


def write_source(path, ids_and_texts, nlp):
    """A file of documents in the format of its suffix; text files have no ids."""
    if path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for _, text in ids_and_texts), encoding="utf8")
    elif path.suffix == ".jsonl":
        write_jsonl(path, [{"text": text, "id": id_} for id_, text in ids_and_texts])
    elif path.suffix == ".spacy":
        docs = [nlp.make_doc(text) for _, text in ids_and_texts]
        for doc, (id_, _) in zip(docs, ids_and_texts, strict=True):
            doc.user_data["id"] = id_
        DocBin(docs=docs, store_user_data=True).to_disk(path)
    else:
        arrow = pytest.importorskip("pyarrow.parquet", reason="Parquet files need pyarrow")
        import pyarrow

        columns = {"id": [id_ for id_, _ in ids_and_texts], "text": [text for _, text in ids_and_texts]}
        arrow.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".spacy", ".parquet"])
def test_each_document_of_each_kind_of_file_is_there_once_and_in_order(place, nlp, tmp_path, suffix):
    ids_and_texts = [(f"doc {i}", text) for i, text in enumerate(texts(50))]
    source = write_source(tmp_path / f"source{suffix}", ids_and_texts, nlp)
    annotate(place, source, tmp_path / "out", "--format", "jsonl")
    if suffix == ".txt":
        ids_and_texts = [(f"source.txt:{i}", text) for i, (_, text) in enumerate(ids_and_texts, start=1)]
    assert written(tmp_path / "out") == expected(nlp, ids_and_texts)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    words = sum(len(nlp.make_doc(text)) for _, text in ids_and_texts)
    assert manifest["sums"] == {"shards": 3, "documents": 50, "words": words, "failures": 0}


def test_a_folder_is_read_file_by_file(place, nlp, tmp_path):
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    write_source(source / "b" / "one.jsonl", [(None, text) for text in texts(12)], nlp)
    write_source(source / "a.spacy", [(7, "Rome")], nlp)
    (source / "c.txt").write_bytes(b"\xef\xbb\xbfto Paris\r\n\r\n \nto Rome")
    (source / "notes.md").write_text("no document")
    (source / ".hidden.txt").write_text("no document")
    (source / "empty.txt").touch()
    assert "notes.md" in annotate(place, source, tmp_path / "out")
    given = [(7, "Rome"), *((f"b/one.jsonl:{i}", text) for i, text in enumerate(texts(12), start=1))]
    assert written(tmp_path / "out") == expected(nlp, [*given, ("c.txt:1", "to Paris"), ("c.txt:4", "to Rome")])


def test_formats_say_the_same(place, nlp, tmp_path):
    ids_and_texts = [*enumerate(texts(30)), (30, "")]
    source = write_source(tmp_path / "source.spacy", ids_and_texts, nlp)
    annotate(place, source, tmp_path / "spacy")
    annotate(place, source, tmp_path / "jsonl", "--format", "jsonl", "--spans-key", "first", "--spans-key", "none")
    docs = [
        doc
        for path in sorted((tmp_path / "spacy" / "shards").iterdir())
        for doc in DocBin().from_disk(path).get_docs(nlp.vocab)
    ]
    wanted = expected(nlp, ids_and_texts)
    assert [said(doc, doc.user_data["id"]) for doc in docs] == wanted
    assert written(tmp_path / "jsonl") == [{**one, "spans": {**one["spans"], "none": []}} for one in wanted]
    arrow = pytest.importorskip("pyarrow.parquet", reason="Parquet files need pyarrow")
    annotate(place, source, tmp_path / "parquet", "--format", "parquet")
    rows = arrow.read_table(tmp_path / "parquet" / "shards").to_pylist()
    found = [{**row, "cats": dict(row["cats"]), "spans": dict(row["spans"])} for row in rows]
    assert found == [{**one, "id": str(one["id"])} for one in wanted]
    # The output can be read as input.
    annotate(place, tmp_path / "parquet" / "shards", tmp_path / "again", "--format", "jsonl")
    assert written(tmp_path / "again") == [{**one, "id": str(one["id"])} for one in wanted]


def test_tokens_are_kept_and_old_annotation_is_not(place, nlp, tmp_path):
    doc = Doc(nlp.vocab, words=["to", "Par", "is", "Rome"], spaces=[True, False, True, False])
    doc.set_ents([doc.char_span(0, 2, label="old")])
    DocBin(docs=[doc]).to_disk(tmp_path / "source.spacy")
    annotate(place, tmp_path / "source.spacy", tmp_path / "out", "--format", "jsonl")
    [found] = written(tmp_path / "out")
    assert found["text"] == "to Paris Rome" and [ent["label"] for ent in found["ents"]] == ["city"]
    assert found["cats"]["odd"] == 0.04


@pytest.mark.parametrize("heads", ["ours", "spacy"])
def test_a_transformer_says_what_it_says_in_one_process(make_base, tmp_path, heads):
    if heads == "ours":
        nlp = build(make_base(), heads=())
        labeler(nlp)
        textcat(nlp, "mean")
        fit(nlp, corpus(nlp))
    else:
        nlp = trained(make_base())
    nlp.to_disk(tmp_path / "pipeline")
    source = write_jsonl(tmp_path / "source.jsonl", [{"id": i, "text": text} for i, text in enumerate(TEXTS * 5)])
    run("lsbillm", "annotate", tmp_path / "pipeline", source, tmp_path / "out", "-n", 2, "--batch-size", 3, "-q")
    docs = list(nlp.pipe(TEXTS * 5))
    found = written(tmp_path / "out")
    assert [one["id"] for one in found] == list(range(len(docs)))
    for one, doc in zip(found, docs, strict=True):
        assert [(e["start"], e["end"], e["label"]) for e in one["ents"]] == [
            (e.start_char, e.end_char, e.label_) for e in doc.ents
        ]
        scores = [None if score is None else pytest.approx(score, abs=1e-5) for score in doc._.ent_scores]
        assert [ent["score"] for ent in one["ents"]] == scores
        assert one["cats"] == {name: pytest.approx(value, abs=1e-5) for name, value in doc.cats.items()}
    assert any(one["ents"] for one in found)


# Documents that cannot be annotated

LONG = "to Paris " + " " * 1_000_000
HOSTILE = {
    "cut": (b'{"id": "x", "text": "to Pa', "not JSON"),
    "bytes": (b'{"id": "x", "text": "to \xff"}', "not UTF-8"),
    "list": (b'["to Paris"]', "not a JSON object"),
    "deep": (b"[" * 100_000, "nested too deep"),
    "no text": ({"id": "x", "txt": "to Paris"}, "no 'text', but 'id', 'txt'. Name another key with --text-key"),
    "null": ({"id": "x", "text": None}, "not a text"),
    "id": ({"id": ["x"], "text": "to Paris"}, "an id must be a string or a whole number"),
    "surrogate": (b'{"id": "x", "text": "\\ud800"}', "surrogates not allowed"),
    "too long": ({"id": "x", "text": LONG}, "1,000,009 characters, more than the 1,000,000"),
    "raises": ({"id": "x", "text": "it raises here"}, "it raises"),
    "infinite": ({"id": "x", "text": "it is infinite"}, "the score of the class 'odd' is nan"),
    "dies": ({"id": "x", "text": "it dies here"}, "ended with status 3"),
    "the gpu": ({"id": "x", "text": "it loses-the-gpu"}, "ended with status 70"),
}


def test_documents_that_fail_are_set_aside_and_no_others(place, nlp, tmp_path):
    good = {
        "empty": {"id": "empty", "text": ""},
        "white": {"id": "white", "text": " \n\t"},
        "long": {"id": "long", "text": "to Paris " * 222},
        "null": {"id": None, "text": "to Rome", "more": 1},
    }
    records = [{"id": i, "text": text} for i, text in enumerate(texts(60))]
    for i, record in enumerate([*(record for record, _ in HOSTILE.values()), *good.values()]):
        records.insert(i * 4, record)
    output = tmp_path / "out"
    told = annotate(place, write_jsonl(tmp_path / "source.jsonl", records), output)
    assert f"{len(HOSTILE)} documents were set aside" in told
    bad = {id(record) for record, _ in HOSTILE.values()}
    given = [
        (f"source.jsonl:{number}" if record["id"] is None else record["id"], record["text"])
        for number, record in enumerate(records, start=1)
        if id(record) not in bad
    ]
    assert written(output) == expected(nlp, given)
    found = failures(output)
    assert len(found) == len(HOSTILE)
    for name, (record, error) in HOSTILE.items():
        number = next(number for number, one in enumerate(records, start=1) if one is record)
        assert error in found[str(number)][1], name
    # The run is complete, and stays so.
    assert "complete already" in annotate(place, tmp_path / "source.jsonl", output)
    # Another limit is another run.
    told = annotate(place, tmp_path / "source.jsonl", output, "--max-length", len(LONG), code=1)
    assert f"--max-length was None, and is {len(LONG)}" in told


def test_a_longer_document_is_annotated_where_it_may(place, tmp_path):
    source = write_jsonl(tmp_path / "source.jsonl", [{"text": LONG}])
    annotate(place, source, tmp_path / "out", "--max-length", len(LONG))
    [found] = written(tmp_path / "out")
    assert found["text"] == LONG and len(found["ents"]) == 1


BROKEN = {
    "source.spacy": b"no DocBin",
    "source.parquet": b"no Parquet",
    "source.jsonl": bytes(range(256)) * 10,
    "source.txt": "to Paris\nto Rome\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_what_its_name_says(place, nlp, tmp_path, name):
    if name == "source.parquet":
        pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(BROKEN[name])
    write_jsonl(source / "z.jsonl", [{"id": 1, "text": "to Paris"}])
    annotate(place, source, tmp_path / "out", "--format", "jsonl")
    assert written(tmp_path / "out")[-1:] == expected(nlp, [(1, "to Paris")])
    found = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert found and all(one["place"].startswith(name) for one in found)


def test_too_many_errors_stop_the_run_which_then_goes_on(place, nlp, tmp_path):
    records = [{"id": i, "text": text} for i, text in enumerate(texts(100))]
    for i in (50, 70, 90):
        records[i]["text"] = "it raises here"
    source, output = write_jsonl(tmp_path / "source.jsonl", records), tmp_path / "out"
    told = annotate(place, source, output, "--max-errors", 1, code=1)
    assert "--max-errors is 1" in told and "source.jsonl:" in told and "it raises" in told
    annotate(place, source, output, "--max-errors", 3)
    assert written(output) == expected(
        nlp, [(one["id"], one["text"]) for one in records if "raises" not in one["text"]]
    )
    assert sorted(failures(output)) == ["51", "71", "91"]


# Kills


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "killed"), [(1, [30]), (2, [5, 30])])
def test_a_process_that_is_killed_is_replaced(place, nlp, tmp_path, processes, killed):
    records = [{"id": i, "text": text} for i, text in enumerate(texts(60))]
    for i in killed:
        records[i]["text"] += f" once:{tmp_path / f'killed-{i}'}"
    source = write_jsonl(tmp_path / "source.jsonl", records)
    annotate(place, source, tmp_path / "out", "-n", processes)
    assert len(list(tmp_path.glob("killed-*"))) == len(killed)
    assert written(tmp_path / "out") == expected(nlp, [(one["id"], one["text"]) for one in records])
    assert not failures(tmp_path / "out")


def test_a_document_without_end_is_set_aside_and_no_others(place, nlp, tmp_path):
    source = [{"id": i, "text": text} for i, text in enumerate([*texts(5), "it is endless", *texts(9)])]
    path, output = write_jsonl(tmp_path / "a.jsonl", source), tmp_path / "out"
    annotate(place, path, output, "--timeout", 1.5)
    assert [record["id"] for record in written(output)] == [*range(5), *range(6, 15)]
    assert list(failures(output)) == ["6"]
    assert "it took longer than the 1.5 seconds of --timeout" in failures(output)["6"][1]


@pytest.mark.slow
def test_a_killed_run_goes_on(place, nlp, tmp_path):
    given = [(i, f"{text} slow") for i, text in enumerate(texts(60))]
    source = write_source(tmp_path / "source.jsonl", given, nlp)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "spacy", "lsbillm", "annotate", place / "pipeline", source, output]
    command += ["--code", place / "code.py", "--quiet", "-n", "2", "--batch-size", "4", "--shard-size", "10"]
    process = subprocess.Popen(list(map(str, command)), start_new_session=True)
    try:
        while not list((output / "shards").glob("*.jsonl")):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        # The annotating processes are in its session and must end by themselves.
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {path: path.stat().st_mtime_ns for path in (output / "shards").glob("*.jsonl")}
    assert 0 < len(before) < 6
    until = time.monotonic() + 60
    while _lives(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _lives(process.pid)
    annotate(place, source, output, "--shard-size", 10)
    assert written(output) == expected(nlp, given)
    # The line of one of the old shards may not have been written yet.
    assert sum(path.stat().st_mtime_ns == at for path, at in before.items()) >= len(before) - 1


def _lives(session):
    return any(
        status.parent.name != str(session) and _session(status) == session
        for status in Path("/proc").glob("[0-9]*/stat")
    )


def _session(status):
    try:
        fields = status.read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])


@pytest.mark.parametrize("damage", ["line", "size", "missing", "partial"])
def test_a_shard_that_is_not_whole_is_made_again(place, nlp, tmp_path, damage):
    given = list(enumerate(texts(50)))
    source, output = write_source(tmp_path / "source.jsonl", given, nlp), tmp_path / "out"
    annotate(place, source, output)
    shard = output / "shards" / "part-000001.jsonl"
    if damage == "line":
        content = (output / "done.jsonl").read_bytes()
        (output / "done.jsonl").write_bytes(content[:-9])
    elif damage == "size":
        shard.write_bytes(shard.read_bytes()[:-9])
    elif damage == "missing":
        shard.unlink()
    else:
        shard.with_name("part-000002.jsonl.partial").write_text("half of one")
    annotate(place, source, output)
    assert written(output) == expected(nlp, given)
    assert len((output / "done.jsonl").read_text().splitlines()) == 3
    assert not list((output / "shards").glob("*.partial"))


# Refusals


@pytest.mark.parametrize("change", ["input", "pipeline", "more input", "shard-size", "format", "key"])
def test_the_output_of_another_run_is_not_touched(place, nlp, tmp_path, change):
    source, output = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    write_source(source / "one.jsonl", list(enumerate(texts(10))), nlp)
    shutil.copytree(place, tmp_path / "place")
    annotate(tmp_path / "place", source, output)
    options, named = [], change
    if change == "input":
        content = (source / "one.jsonl").read_text()
        (source / "one.jsonl").write_text(content.replace("Paris", "Sofia"))
        named = "the input file 'one.jsonl' was different"
    elif change == "more input":
        (source / "two.txt").write_text("to Rome")
        named = "the input file 'two.txt' was not there"
    elif change == "pipeline":
        nlp.to_disk(tmp_path / "place" / "pipeline", exclude=["odd"])
        (tmp_path / "place" / "pipeline" / "meta.json").write_text("{}")
    else:
        options = {"shard-size": ["--shard-size", 21], "format": ["--format", "spacy"], "key": ["--text-key", "t"]}[
            change
        ]
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    told = annotate(tmp_path / "place", source, output, *options, code=1)
    assert "the output of another run" in told and named in told
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_a_file_that_could_not_be_read_and_can_be_now(place, nlp, tmp_path, monkeypatch):
    """The documents after it would be renumbered."""
    source, output = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    write_source(source / "a.spacy", list(enumerate(texts(10))), nlp)
    write_source(source / "b.jsonl", list(enumerate(texts(50))), nlp)
    with monkeypatch.context() as patch:
        read = annotation_run.read_items

        def unreadable(file, keys):
            for item in read(file, keys):
                yield item
                if file.name == "a.spacy":
                    return

        patch.setattr(annotation_run, "read_items", unreadable)
        annotate(place, source, output)
    (output / "shards" / "part-000001.jsonl").unlink()
    assert "Name another output folder" in annotate(place, source, output, code=1)


WRONG = {
    "no input": (["nowhere"], "there is no file or folder 'nowhere'"),
    "suffix": (["notes.md"], "the suffix '.md' is not known. Use one of: .txt, .jsonl, .spacy, .parquet"),
    "empty folder": (["empty"], "holds no file that ends in .txt"),
    "format": (["a.txt", "--format", "xml"], "--format xml is not known. Use one of: jsonl, parquet, spacy"),
    "processes": (["a.txt", "-n", "0"], "--processes 0 is not allowed"),
    "shard size": (["a.txt", "--shard-size", "0"], "--shard-size 0 is not allowed"),
    "batch": (["a.txt", "--batch-bytes", "0"], "--batch-bytes 0 is not allowed"),
    "errors": (["a.txt", "--max-errors", "-2"], "--max-errors -2 is not allowed"),
    "gpu": (["a.txt", "-g", "77"], "--gpu-id 77: torch sees"),
    "gpus": (["a.txt", "-g", "0,0"], "each GPU once"),
    "no time": (["a.txt", "--timeout", "0"], "--timeout 0.0 is not allowed: it must be a number of seconds above 0"),
    "no gpu": (["a.txt", "-g", "first"], "--gpu-id first is not allowed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named_before_anything_is_loaded(place, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("to Paris")
    Path("notes.md").write_text("to Paris")
    Path("empty").mkdir()
    (source, *options), message = WRONG[case]
    told = run("lsbillm", "annotate", place / "pipeline", source, "out", *options, code=1)
    assert message in " ".join(told.split())
    assert not Path("out").exists()


def test_places_that_are_no_output(place, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("to Paris")
    for output, message in [
        (source / "out", "contain one another"),
        (tmp_path, "contain one another"),
        (place, "is not empty and holds no manifest.json"),
        (place / "code.py", "is a file"),
    ]:
        assert message in annotate(place, source, output, code=1)
    told = run("lsbillm", "annotate", "no_such_package", source, tmp_path / "out", code=1)
    assert "neither a folder nor an installed pipeline" in " ".join(told.split())


def test_a_pipeline_that_cannot_be_loaded_ends_the_run(place, tmp_path):
    (tmp_path / "a.txt").write_text("to Paris")
    told = run("lsbillm", "annotate", place / "pipeline", tmp_path / "a.txt", tmp_path / "out", "-n", 2, code=1)
    told = " ".join(told.split())
    assert "cannot be loaded" in told and "odd" in told


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody", "ray://127.0.0.1:1", "listening"])
def test_an_address_where_no_ray_runs(place, tmp_path, monkeypatch, address):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    (tmp_path / "a.txt").write_text("to Paris")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}" if address == "listening" else address
        begun = time.monotonic()
        told = annotate(place, tmp_path / "a.txt", tmp_path / "out", "--ray", address, code=1)
    assert "leave out --ray: processes on one machine do not need it" in told
    try:
        import ray  # noqa: F401
    except ImportError:
        assert "spacy-lsbillm[ray]" in told
    else:
        assert address in told and time.monotonic() - begun < 60


def test_the_address_may_be_left_out(place, tmp_path, monkeypatch):
    asked = []

    def pool(settings, how, format_name):
        asked.append(how.ray)
        raise SettingError("no")

    monkeypatch.setattr(annotation_run, "_pool", pool)
    (tmp_path / "a.txt").write_text("to Paris")
    common = ["lsbillm", "annotate", place / "pipeline", tmp_path / "a.txt", tmp_path / "out"]
    for options in (["--ray"], ["--ray", "-q"], ["--ray", "h:1", "-q"], ["--ray=h:1"], []):
        run(*common, *options, code=1)
    assert asked == ["auto", "auto", "h:1", "h:1", None]


# Batches


@given(
    st.lists(st.integers(0, 100), max_size=60),
    st.integers(1, 20),
    st.integers(1, 300),
    st.integers(1, 9),
    st.integers(1, 99),
)
def test_nothing_is_lost_between_shards_and_batches(sizes, shard_size, shard_bytes, batch_size, batch_bytes):
    items = [Item(str(i), Line(b"", ".txt"), size, size) for i, size in enumerate(sizes)]
    shards = list(cut_shards(items, shard_size, shard_bytes))
    assert [item for shard in shards for item in shard.items] == items
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for shard in shards:
        batches = list(cut_batches(shard, batch_size, batch_bytes))
        assert [item for batch in batches for item in batch.items] == shard.items
        for batch in batches:
            assert shard.items[batch.start] is batch.items[0] and len(batch.items) <= batch_size
            assert len(batch.items) == 1 or sum(item.size for item in batch.items) <= batch_bytes
        # Neighbouring batches would not fit into one.
        for one, other in pairwise(batches):
            assert len(one.items) == batch_size or sum(i.size for i in one.items) + other.items[0].size > batch_bytes


@pytest.mark.parametrize("number", [2, 3, 8, 9, 64, 100])
def test_parts_are_the_batch(number):
    [batch] = cut_batches(Shard(3, [Item(str(i), Line(b"", ".txt"), 1, 1) for i in range(number)]), number, number)
    parts = batch.parts()
    assert [item for part in parts for item in part.items] == batch.items
    assert 1 < len(parts) <= 8 and all(len(part.items) < number and part.shard == 3 for part in parts)
    assert all(part.items[0] is batch.items[part.start] for part in parts)


def test_settings_have_defaults_that_are_allowed(tmp_path):
    assert AnnotationSettings("p", tmp_path, tmp_path, tmp_path).shard_size > 0
    assert RunSettings().max_errors >= 0
    assert os.cpu_count() is None or annotation_run.cores() <= os.cpu_count()
