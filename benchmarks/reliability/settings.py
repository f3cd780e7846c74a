"""Configs with settings at their limits, of wrong types, or unknown: alone, in pairs, and all at once."""

import contextlib
import json
import math
import os
import random
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from spacy.language import Language
from spacy.training import Example
from thinc.api import Adam

from .child import fresh
from .part import Broken, Check, Part
from .small import CLASSES, LAYERS, LISTENER, POSITIONS, SPANS, TEXTS, make_base

INFINITE, NO_NUMBER = math.inf, math.nan
# Every message that says what is allowed contains one of these.
RANGE = (
    " is not ",
    " is no ",
    "there is no",
    "the linear layers are",
    "write ",
    "must",
    "use ",
    "should be",
    "allowed",
    "expected",
    "at least",
    "at most",
    "it has:",
    "name ",
    "not permitted",
    "cannot",
    "available names",
)


@dataclass(frozen=True, eq=False)
class Setting:
    """A setting with values to try.

    path (str): The path of the setting, beginning with its component.
    good (tuple): Values that work with the tiny base, alone and together with good values of others; or a message says
        which do not fit together.
    bad (tuple): Values that must be refused.
    open (tuple): Values that may be converted to a valid one, or refused.
    called (str): The setting's name in messages, if it differs.
    """

    path: str
    good: tuple[Any, ...]
    bad: tuple[Any, ...]
    open: tuple[Any, ...] = ()
    called: str = ""

    @property
    def unknown(self) -> bool:
        """Whether there is no such setting."""
        return self.path in UNKNOWN

    def is_named(self, text: str) -> bool:
        """Whether a message names the setting."""
        return self.path.rpartition(".")[2] in text or bool(self.called and self.called in text)


UNKNOWN = (
    "transformer.batch_size",
    "transformer.model.unmasks",
    "transformer.model.trainable",
    "transformer.model.lora.rank",
    "sequence_labeler.tags",
    "textcat.model.pool",
)
T, M, L = "transformer", "transformer.model", "transformer.model.lora"
SETTINGS = (
    Setting(f"{T}.max_batch_items", (1, 2, 64, 10**9), (0, -1, 1.5, "many", None, [4]), ("64", True, INFINITE)),
    Setting(
        f"{M}.name", (), ("", None, 5, ["a", "b"], "/nowhere/at/all", "no base here"), called="Name an existing folder"
    ),
    Setting(f"{M}.revision", (None, "main", ""), (["main"], {"a": 1}), (3,)),
    Setting(
        f"{M}.unmask",
        ("all", "none", "0011", "bits:01", "from:0", "from:3", "layers:0-3", "layers:3", "layers:1,2"),
        (11, "", "002", "bits:", "bits:011", "from:-1", "from:x", "layers:4", "layers:3-1", "ALL ", None, [], 0.5),
        ("from:4", True, " all", "layers:1,1"),
    ),
    Setting(
        f"{M}.quantization", (None, "nf4", "fp4", "int8"), ("nf3", "", "NF4", 4, ["nf4"]), (True, False, "null", "None")
    ),
    Setting(f"{M}.dtype", ("float32", "bfloat16", "float16", "auto"), ("float64", "", None, 32, ["float32"]), ()),
    Setting(f"{M}.attention", ("auto", "sdpa", "eager"), ("flash_attention_2", "", None, 1, {})),
    Setting(f"{M}.depth", (None, 1, LAYERS), (0, -1, LAYERS + 1, 10**20, 1.5, "deep", [2]), ("2", True, 2.0)),
    Setting(
        f"{M}.scalar_mix",
        (None, "all", "from:3", "layers:0", "layers:1-2"),
        ("", "none", "layers:9", "from:9", 3, [], {}),
        ("0011", True),
    ),
    Setting(f"{M}.gradient_checkpointing", (True, False), (None, "perhaps", 2, []), ("yes", 1, "true")),
    Setting(
        f"{M}.window",
        (None, 4, 17, POSITIONS),
        (1, 0, -5, POSITIONS + 1, 10**20, "wide", 8.5, [8]),
        (True, "8", 2, 8.0),
    ),
    Setting(f"{M}.overlap", (None, 0, 1, 3), (-1, POSITIONS, 10**20, 0.5, "much", [1]), (True, "1", 1.0)),
    Setting(
        f"{M}.learn_rate_scale",
        (1.0, 1, 1e-12, 10.0),
        (0, 0.0, -1.0, "fast", None, [1.0], NO_NUMBER, INFINITE),
        ("2", True),
    ),
    Setting(f"{M}.repeat", (0, 1, 2), (-1, 10**20, 1.5, "twice", None, [1]), ("1", True, 1.0, POSITIONS)),
    Setting(f"{M}.unmask_warmup", (0, 1, 10**9), (-1, 1.5, "all", None, [1]), ("1", True, 1.0)),
    Setting(f"{M}.heads_first", (0, 1, 10**9), (-1, 1.5, "all", None, [1]), ("1", True, 1.0)),
    Setting(f"{M}.output", ("tokens", "pieces"), ("words", "", None, 1, ["tokens"])),
    Setting(f"{M}.adapter_optimizer", (None, "adamw_8bit"), ("adam", "", 8, ["adamw_8bit"]), (True,)),
    Setting(f"{M}.store_base", ("reference", "copy", "merged"), ("link", "", None, 0, ["copy"])),
    Setting(f"{M}.store_adapter", ("float32", "bfloat16", "float16"), ("auto", "", None, 16, ["float16"])),
    Setting(f"{M}.fold_adapter", ("auto", "always", "never"), ("sometimes", "", None, 2), (True, False)),
    Setting(f"{M}.add_bos_token", (None, True, False), ("perhaps", 2, [], 0.5), ("yes", 1, "true")),
    Setting(
        f"{M}.get_spans",
        (
            {"@span_getters": "spacy-transformers.doc_spans.v1"},
            {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 6, "stride": 4},
        ),
        (5, "doc_spans", {"@span_getters": "no such getter"}),
        (None, {}, []),
    ),
    Setting(f"{M}.lora", (None, {}), (5, "all", [], {"rank": 4}, {"R": 4}), (True, False)),
    Setting(f"{L}.r", (1, 3, 64), (0, -1, 1.5, "16", None, [4], INFINITE), (True, 4.0)),
    Setting(f"{L}.alpha", (1e-9, 0.5, 1, 64), (0, -1, "big", None, [1], NO_NUMBER, INFINITE), (True,)),
    Setting(f"{L}.dropout", (0, 0.0, 0.5, 0.99), (1, 1.0, -0.1, 2, "half", None, [0.1], NO_NUMBER), (True, False)),
    Setting(
        f"{L}.target_modules",
        ("all-linear", ["q_proj"], ["q_proj", "down_proj"], ".*v_proj", ["self_attn.q_proj"]),
        ("", [], ["nothing"], "(", "no.*such", 5, None, [1], [""], {}, ["q_proj", None], True, 0.5),
        (["q_proj", "q_proj"],),
    ),
    Setting(f"{L}.use_rslora", (True, False), (None, "perhaps", 2, [], 0.5), ("true", 1, 0)),
    Setting(f"{L}.use_dora", (True, False), (None, "perhaps", 2, [], 0.5), ("true", 1, 0)),
    Setting("sequence_labeler.scheme", ("biluo", "iob2"), ("bio", "", "IOB2", None, 1, ["iob2"])),
    Setting("sequence_labeler.spans_key", (None, "sc", "slots.one"), ([], {}), ("", 3, True)),
    Setting("sequence_labeler.model.nO", (None,), (0, -1, 3, 1.5, "many", [5]), (13, True)),
    Setting("textcat.model.pooling", ("last", "mean", "max", "attention"), ("first", "", None, 1, ["mean"])),
    Setting("textcat.model.exclusive_classes", (True,), (None, "perhaps", 2, []), (False, "yes", 1)),
    Setting("textcat.model.nO", (None, 3), (0, -1, 2, 4, 1.5, "many", [3]), (True, "3"), called="output dimension"),
    Setting("textcat.threshold", (0.0, 0.5, 1.0), ("half", [], None), (-1, 2, True)),
    # Settings that do not exist.
    *(Setting(path, (), ("all", None, 1)) for path in UNKNOWN),
)
Chosen = dict[Setting, Any]
ALONE = [(setting, value) for setting in SETTINGS for value in (*setting.good, *setting.bad, *setting.open)]
PAIRS = list(combinations(SETTINGS, 2))
HEADS = {
    "sequence_labeler": {"model": {"tok2vec": LISTENER}},
    "textcat": {
        "model": {
            "@architectures": "spacy-lsbillm.PooledTextCat.v1",
            "exclusive_classes": True,
            "tok2vec": LISTENER,
        }
    },
}


def choose(number: int, chance: random.Random) -> Chosen:
    """The settings of a case.

    First each value alone; then, in turn, two settings with any values, and all settings with good values.
    """
    if number < len(ALONE):
        setting, value = ALONE[number]
        return {setting: value}
    number -= len(ALONE)
    if number % 3 < 2:
        pair = PAIRS[(number // 3 * 2 + number % 3) % len(PAIRS)]
        return {setting: chance.choice((*setting.good, *setting.bad, *setting.open)) for setting in pair}
    return {setting: chance.choice(setting.good) for setting in SETTINGS if setting.good and chance.random() < 0.5}


def config_of(chosen: Chosen, base: Path) -> dict[str, dict[str, Any]]:
    """The configs of the components."""
    model = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(base)}
    config = {"transformer": {"model": model}, **json.loads(json.dumps(HEADS))}
    # Blocks before the settings inside them.
    for setting, value in sorted(chosen.items(), key=lambda item: item[0].path.count(".")):
        block = config
        *parts, name = setting.path.split(".")
        for part in parts:
            inside = block.get(part)
            block[part] = inside if isinstance(inside, dict) else {}
            block = block[part]
        block[name] = value
    return config


@contextlib.contextmanager
def open_settings(work: Path) -> Iterator[Check]:
    """Prepare the cases, see `Part.open`."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    base = make_base(fresh(work) / "base")
    # The base has a start token, so that `add_bos_token` can be tried.
    nlp = spacy.blank("en")
    with contextlib.chdir(work), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield partial(_check, work, nlp, base)


def _check(work: Path, nlp: Language, base: Path, number: int, chance: random.Random) -> None:
    chosen = choose(number, chance)
    config = config_of(chosen, base)
    bad = [setting for setting, value in chosen.items() if any(_same(value, one) for one in setting.bad)]
    # A setting inside a block replaces the value chosen for the block.
    bad = [one for one in bad if not any(other.path.startswith(f"{one.path}.") for other in chosen)]
    try:
        _use(work, nlp, config, saved=chance.random() < 0.3 or number < len(ALONE))
    except Exception as error:
        why = _unexplained(error, chosen)
        if why:
            raise Broken(f"{_words(chosen)}: {why}: {type(error).__name__}: {str(error)[:800]}") from error
        if not bad and len(chosen) == 1 and number < len(ALONE):
            ((setting, value),) = chosen.items()
            if any(_same(value, one) for one in setting.good):
                raise Broken(f"{_words(chosen)} is refused: {str(error)[:400]}") from error
        return
    finally:
        for name in nlp.pipe_names:
            nlp.remove_pipe(name)
    if bad:
        raise Broken(f"{_words(chosen)} works, although {', '.join(one.path for one in bad)} must be refused")


def _use(work: Path, nlp: Language, config: dict[str, Any], saved: bool) -> None:
    """Build, initialise, train for a step, predict, save and load."""
    nlp.add_pipe("billm_transformer", name="transformer", config=config["transformer"])
    for head in HEADS:
        nlp.add_pipe(head, config=config[head])
    key = config["sequence_labeler"].get("spans_key")
    data = _examples(nlp, key)
    nlp.initialize(lambda: data)
    losses = nlp.update(data, sgd=Adam(0.01, L2_is_weight_decay=True, use_averages=False), losses={})
    if not all(math.isfinite(loss) for loss in losses.values()):
        raise Broken(f"the losses are {losses}")
    before = _predicted(nlp)
    if not saved:
        return
    place = fresh(work / "pipeline")
    nlp.to_disk(place)
    loaded = spacy.load(place)
    after = _predicted(loaded)
    rounded = config["transformer"]["model"]
    # Half precision and quantised weights round.
    exact = rounded.get("dtype", "float32") == "float32" and rounded.get("quantization") is None
    exact = exact and rounded.get("store_adapter", "float32") == "float32"
    for one, other in zip(before, after, strict=True):
        if exact and not np.allclose(one, other, rtol=1e-4, atol=1e-4):
            raise Broken(f"loaded again, vectors differ by {abs(one - other).max()}")
    shutil.rmtree(place)


def _examples(nlp: Language, key: str | None) -> list[Example]:
    made = []
    for text, spans, chosen in zip(TEXTS, SPANS, CLASSES, strict=True):
        gold: dict[str, Any] = {"cats": {name: float(name == chosen) for name in set(CLASSES)}}
        gold |= {"entities": spans} if key is None else {"spans": {key: spans}}
        made.append(Example.from_dict(nlp.make_doc(text), gold))
    return made


def _predicted(nlp: Language) -> list[np.ndarray]:
    docs = list(nlp.pipe(TEXTS))
    vectors = [doc._.trf_data.model_output.last_hidden_state[0] for doc in docs]
    for doc, rows in zip(docs, vectors, strict=True):
        if not np.isfinite(rows).all():
            raise Broken(f"vectors of {doc.text!r} are not finite")
    return vectors


def _unexplained(error: Exception, chosen: Chosen) -> str | None:
    """What an error message lacks; None if nothing."""
    if isinstance(error, Broken) or not isinstance(error, ValueError):
        return "it is not one of our messages"
    text = str(error)
    # The message may name any chosen setting, because one that may be refused can hide one that must be.
    named = [setting for setting in chosen if setting.is_named(text) or _names_function(text, chosen[setting])]
    if not named:
        return "it does not name the setting"
    if not any(setting.unknown or _shows(text, chosen[setting]) for setting in named):
        return "it does not name the value"
    if not any(word in text.lower() for word in RANGE):
        return "it does not say what is allowed"
    return None


def _names_function(text: str, value: Any) -> bool:
    """Whether a message names a function that is not registered: spaCy names it and the registered ones."""
    return isinstance(value, dict) and any(key.startswith("@") and str(name) in text for key, name in value.items())


def _shows(text: str, value: Any) -> bool:
    forms = {repr(value), str(value)}
    with contextlib.suppress(TypeError):
        forms.add(json.dumps(value))
    if isinstance(value, list):
        forms.update(repr(one) for one in value)
    if isinstance(value, dict):
        forms.update(repr(key) for key in value)
        forms.update(map(str, value.values()))
    return any(form in text for form in forms)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other or one is other)


def _words(chosen: Chosen) -> str:
    return ", ".join(f"{setting.path} = {value!r}" for setting, value in chosen.items())


PART = Part(
    name="settings",
    cases=2000,
    what="every setting at its limits, with wrong types, with unknown names: alone, in all pairs, and many at once",
    holds="it works, also after saving and loading, or a message names the setting, the value and what is allowed",
    open=open_settings,
)
