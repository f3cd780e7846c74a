"""Model cards of pipelines: their content, for readers and for hubs, and when they are written."""

import json
import re
import shutil

import pytest
import spacy
from corpora import run, write_config, write_corpus
from huggingface_hub import ModelCard
from places import SAVED

import spacy_lsbillm
from spacy_lsbillm.backbone import MaskPlan
from spacy_lsbillm.cards import write_card
from spacy_lsbillm.cards.picture import mask_picture

pytestmark = pytest.mark.any_stack


def read(folder):
    return (folder / "README.md").read_text(encoding="utf8")


def before_versions(folder):
    """The text before the versions of libraries, which are those of the environment in which the card was written."""
    return read(folder).partition("| Versions |")[0]


def front(folder):
    """The front matter as the hub's client reads it."""
    return ModelCard.load(folder / "README.md").data


def edit_meta(folder, **entries):
    meta = json.loads((folder / "meta.json").read_text(encoding="utf8"))
    (folder / "meta.json").write_text(json.dumps({**meta, **entries}), encoding="utf8")


@pytest.fixture(scope="module")
def trained(make_base, tmp_path_factory):
    """The output of `lsbillm train` with a config from `training_config`, over a base with a licence."""
    root = tmp_path_factory.mktemp("card")
    base = shutil.copytree(make_base("llama"), root / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n", encoding="utf8")
    corpus = write_corpus(root / "some.spacy", copies=1)
    config = write_config(root / "config.cfg", corpus, base, ("sequence_labeler", "textcat"), unmask="0011", lang="xx")
    few = ("--training.max_steps", 2, "--training.eval_frequency", 1, "--system.seed", 7)
    run("lsbillm", "train", config, "--output", root / "training", *few)
    return root / "training" / "model-best"


@pytest.fixture
def saved(tmp_path):
    """A copy of a pipeline that has no card."""
    return shutil.copytree(SAVED / "copy", tmp_path / "pipeline")


def test_training_writes_a_card_for_readers(trained):
    text = read(trained)
    record = json.loads((trained / "transformer" / "billm.json").read_text(encoding="utf8"))
    assert "on the development set have chosen" in text
    for said in (
        f"| Base of `transformer` | `{record['base']['name']}`: `llama`, 4 layers, width 32 |",
        "| Its licence | apache-2.0 |",
        f"| Its fingerprint | `{record['base']['fingerprint']}` |",
        "| It is in the pipeline | no; ",
        "| Adapter | LoRA, r = 16, alpha = 32, dropout = 0.05, on `all-linear` |",
        "2 of 4 layers see right: layers 0-1 causal, layers 2-3 bidirectional. (`unmask` = `0011`)",
        "\n  ⇄⇄  layers 2-3  bidirectional",
        "Confidence of `sequence_labeler`: not calibrated.",
        'spacy.load("xx_pipeline")',
        "doc.ents",
        "doc.cats",
        "| `textcat` | `book`, `play`, `weather` |",
        "| Training data | `some.spacy` |",
        "| Where they are from, and their licence | not stated |",
        "| Seed | 7 |",
        "| Length | at most 2 updates |",
        f"spacy {spacy.__version__}",
    ):
        assert said in text, said
    assert re.search(r"\| Time \| 0\.\d minutes until this was saved, ", text)
    assert "| Device | cpu |" in text
    # Nothing else in the folder depends on the training time, and the card can be written again.
    assert "seconds" not in (trained / "meta.json").read_text(encoding="utf8")
    assert write_card(trained) and read(trained) == text


def test_training_writes_front_matter_for_hubs(trained):
    data = front(trained)
    assert data.library_name == "spacy" and data.language == "multilingual" and data.license is None
    # A base in a local folder is not a model of the hub.
    assert data.base_model is None
    assert {"spacy", "token-classification", "text-classification"} <= set(data.tags)
    performance = json.loads((trained / "meta.json").read_text(encoding="utf8"))["performance"]
    found = {result.metric_name: result for result in data.eval_results}
    assert found["ents_f"].metric_value == round(performance["ents_f"], 4)
    assert found["ents_f"].task_type == "token-classification" and found["ents_f"].metric_type == "f1"
    assert found["cats_micro_f"].metric_value == round(performance["cats_micro_f"], 4)
    assert all(result.dataset_name == "development set some.spacy" for result in found.values())
    assert not [name for name in found if "loss" in name]


def test_a_package_has_the_card_as_its_own(trained, tmp_path):
    run("package", trained, tmp_path, "--build", "none")
    assert read(tmp_path / "xx_pipeline-0.0.0") == read(trained)


def test_what_is_not_known_is_not_invented(saved):
    """The pipeline was trained without spaCy's loop, so the training settings in its config are only defaults."""
    run("lsbillm", "card", saved)
    text, data = read(saved), front(saved)
    assert data.eval_results is None and data.license is None
    for said in ("Scores: not stated.", "| Licence | not stated |", "| Seed | not stated |", "| Time | not stated |"):
        assert said in text, said
    assert "updates" not in text and not re.search(r"\bdev\b", text.lower())
    assert "development" not in text.lower().replace("development data | not stated", "")


HOSTILE = '</td><script>alert("x")</script> | a `b` **c** [d](http://e)\n---\n# f'


def test_what_users_have_written_is_escaped(saved):
    names = dict.fromkeys(("name", "description", "license", "author", "email", "url", "version"), HOSTILE)
    sources = [{"name": HOSTILE, "license": HOSTILE, "author": HOSTILE, "url": HOSTILE}]
    performance = {"ents_f": 0.5, f"spans_{HOSTILE}_f": 0.25}
    labels = {HOSTILE: [HOSTILE, "plain_label"]}
    edit_meta(saved, **names, sources=sources, performance=performance, labels=labels)
    write_card(saved)
    text, data = read(saved), front(saved)
    assert data.license == "other" and data.license_name == HOSTILE
    assert {result.metric_name for result in data.eval_results} == set(performance)
    body = text.split("\n---\n", 1)[1]
    code_blocks = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    assert len(code_blocks.findall(body)) == 3
    shown = re.sub(r"`[^`\n]*`", "", code_blocks.sub("", body))
    assert "<script" not in shown and "</td" not in shown and "](http" not in shown.replace(r"\]", "")
    assert [line for line in shown.splitlines() if line.startswith("# ")] == [shown.splitlines()[1]]
    tables = re.findall(r"(?:^\|.*\n)+", shown, re.MULTILINE)
    assert len(tables) == 4
    for rows in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}) == 1


def test_scores_on_further_data_are_added_and_replaced(saved, tmp_path):
    scores = tmp_path / "metrics.json"
    for value in (0.25, 0.75):
        scores.write_text(json.dumps({"ents_f": value, "speed": 1234.5, "ents_per_type": {}}), encoding="utf8")
        run("lsbillm", "card", saved, "--scores", scores, "--data", "test set a.spacy")
    assert "| Score | spaCy's name | test set a.spacy |" in read(saved)
    assert "| Entities, F1 | `ents_f` | 0.7500 |" in read(saved) and "1234" not in read(saved)
    assert "development set" not in read(saved)
    [result] = front(saved).eval_results
    assert (result.dataset_name, result.metric_value) == ("test set a.spacy", 0.75)
    assert spacy.load(saved).pipe_names
    scores.write_text('{"speed": 1.0}', encoding="utf8")
    assert "holds no score" in run("lsbillm", "card", saved, "-s", scores, "-d", "other", code=1)
    assert "go together" in run("lsbillm", "card", saved, "-s", scores, code=1)


def test_calibration_sources_and_notes_of_the_meta_are_in_it(saved):
    calibrated = {"documents": 70, "spans": 1200, "curve": "beta", "ece_before": 0.1234, "ece_after": 0.0123}
    sources = [{"name": "tiny-llama", "license": "mit"}, {"name": "Snips", "license": "CC0-1.0", "author": "Coucke"}]
    edit_meta(saved, calibration={"sequence_labeler": calibrated}, sources=sources, notes="### Mine\n\n{front} `x`")
    write_card(saved)
    text = read(saved)
    assert "calibrated on 70 documents with 1,200 spans (beta). Expected calibration error 0.123 before, 0.012" in text
    assert "| Source | Snips, Coucke; licence: CC0-1.0 |" in text and text.count("tiny-llama") == 1
    assert "\n\n### Mine\n\n{front} `x`\n" in text


def test_a_card_that_somebody_has_edited_is_kept(saved):
    assert write_card(saved) and write_card(saved)
    path = saved / "README.md"
    path.write_text(read(saved).replace("## Use", "## How to use"), encoding="utf8")
    assert not write_card(saved)
    assert "by hand" in run("lsbillm", "card", saved, code=1) and "## How to use" in read(saved)
    run("lsbillm", "card", saved, "--force")
    assert "## How to use" not in read(saved)


def test_a_pipeline_that_is_written_again_has_a_card_of_its_own(saved, tmp_path):
    run("lsbillm", "card", saved)
    assert "| It is in the pipeline | yes, unchanged |" in read(saved)
    run("lsbillm", "merge", saved, tmp_path / "merged")
    assert "| It is in the pipeline | yes, with the adapter folded in" in read(tmp_path / "merged")
    spacy_lsbillm.save(spacy.load(saved), tmp_path / "again")
    assert before_versions(tmp_path / "again") == before_versions(saved)
    (tmp_path / "again" / "README.md").write_text("mine", encoding="utf8")
    spacy_lsbillm.save(spacy.load(saved), tmp_path / "again")
    assert read(tmp_path / "again") == "mine"


def test_a_card_that_cannot_be_written_costs_no_pipeline(saved, tmp_path):
    nlp = spacy.load(saved)
    nlp.meta["calibration"] = 3
    with pytest.warns(UserWarning, match=r"no model card was written, as StorageError: .*meta.json.* lsbillm card"):
        spacy_lsbillm.save(nlp, tmp_path / "p")
    assert spacy.load(tmp_path / "p").pipe_names == nlp.pipe_names and not (tmp_path / "p" / "README.md").exists()


@pytest.mark.parametrize(
    ("notation", "lines"),
    [
        ("none", ["  ←←←←  layers 0-3  causal"]),
        ("layers:1", ["  ←←  layers 2-3  causal", "  ⇄   layer 1     bidirectional", "  ←   layer 0     causal"]),
    ],
)
def test_the_picture_shows_the_layer_next_to_the_output_on_top(notation, lines):
    picture = mask_picture(MaskPlan.parse(notation, 4)).splitlines()
    assert picture[0] == "output" and picture[-1] == "input"
    assert [line.partition(":")[0] for line in picture[1:-1]] == lines
