"""Complete training configs: a bidirectional LLM, and spaCy components that listen to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spacy.util import get_lang_class, load_model_from_config
from thinc.api import Config

from ..architectures import DEFAULT_LORA
from ..errors import SettingError
from ..pipeline.billm_transformer import DEFAULT_CONFIG
from ..values import check_at_least, check_choice
from .fitted import Fitted

TRANSFORMER = "transformer"


@dataclass(frozen=True)
class Device:
    """Settings that depend on the device.

    dtype (str): Dtype of the base's weights and arithmetic.
    max_batch_items (int): Maximum pieces per forward pass.
    batch_words (int): Words per training batch.
    learn_rate (float): The peak learning rate, after the warm-up, if the size of the base is not known. A base that can
        be trained on a CPU is small, and small models need higher rates.
    steps (int), warmup (int): Number of training steps, and of warm-up steps among them.
    eval_frequency (int): Steps between evaluations.
    """

    dtype: str
    max_batch_items: int
    batch_words: int
    learn_rate: float
    steps: int
    warmup: int
    eval_frequency: int


DEVICES = {
    "cpu": Device("float32", 4096, 600, 0.002, steps=1000, warmup=50, eval_frequency=100),
    "gpu": Device("bfloat16", 16384, 2000, 0.0002, steps=5000, warmup=250, eval_frequency=250),
}

# How often a training of a given length is evaluated, most wanted first. The first number that divides the steps is
# taken, so that the last step is evaluated, too.
EVALUATIONS = (6, 5, 7, 8, 4, 9, 10)

LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_mean.v1"},
    "upstream": "*",
}


def _parser(state_type: str, width: int, pieces: int) -> dict[str, Any]:
    return {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": state_type,
        "extra_state_tokens": False,
        "hidden_width": width,
        "maxout_pieces": pieces,
        "use_upper": False,
        "nO": None,
    }


def _textcat(exclusive: bool) -> dict[str, Any]:
    return {
        "@architectures": "spacy-lsbillm.TextCatReduce.v1",
        "exclusive_classes": exclusive,
        "use_reduce_first": False,
        "use_reduce_last": False,
        "use_reduce_max": True,
        "use_reduce_mean": True,
        "nO": None,
    }


def _pooled(exclusive: bool, pooling: str) -> dict[str, Any]:
    return {
        "@architectures": "spacy-lsbillm.PooledTextCat.v1",
        "pooling": pooling,
        "exclusive_classes": exclusive,
        "nO": None,
    }


def _spancat(scorer: dict[str, Any]) -> dict[str, Any]:
    reducer = {"@layers": "spacy.mean_max_reducer.v1", "hidden_size": 128}
    return {"@architectures": "spacy.SpanCategorizer.v1", "reducer": reducer, "scorer": scorer}


TAGGER = {"@architectures": "spacy.Tagger.v2", "nO": None, "normalize": False}
LOGISTIC = {"@layers": "spacy.LinearLogistic.v1", "nO": None, "nI": None}

# The model of each component, without its listener.
MODELS: dict[str, dict[str, Any]] = {
    "ner": _parser("ner", 64, 2),
    "sequence_labeler": {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "nO": None},
    "span_labeler": {"@architectures": "spacy-lsbillm.SpanLabeler.v1", "nO": None},
    "textcat": _textcat(True),
    "textcat_multilabel": _textcat(False),
    "tagger": TAGGER,
    "morphologizer": TAGGER,
    "parser": _parser("parser", 128, 3),
    "senter": TAGGER,
    "spancat": _spancat(LOGISTIC),
    "spancat_singlelabel": _spancat({"@layers": "Softmax.v2"}),
    "span_finder": {"@architectures": "spacy-lsbillm.SpanFinder.v1", "scorer": {**LOGISTIC, "nO": 2}},
}
# A component of spaCy: it sets `doc._.trf_data` to None.
CLEANER = "doc_cleaner"
KNOWN = (*MODELS, CLEANER)
CLASSIFIERS = {"textcat", "textcat_multilabel"}

# Components that write to the same place; only one of each group can be scored.
EXCLUSIVE = (
    ("ner", "sequence_labeler", "doc.ents"),
    ("textcat", "textcat_multilabel", "doc.cats"),
    ("spancat", "spancat_singlelabel", 'doc.spans["sc"]'),
    ("span_labeler", "spancat", 'doc.spans["sc"]'),
    ("span_labeler", "spancat_singlelabel", 'doc.spans["sc"]'),
)

ENTITIES: dict[str, float | None] = {"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None}
SPANS: dict[str, float | None] = {"spans_sc_f": 1.0, "spans_sc_p": 0.0, "spans_sc_r": 0.0}
# For each component the score that decides which model is best, and those that are shown with it. A component's weights
# add up to 1 and are divided by the number of components.
SCORES: dict[str, dict[str, float | None]] = {
    "ner": ENTITIES,
    "sequence_labeler": ENTITIES,
    "span_labeler": SPANS,
    "textcat": {"cats_micro_f": 1.0, "cats_score": 0.0},
    "textcat_multilabel": {"cats_micro_f": 1.0, "cats_score": 0.0},
    "tagger": {"tag_acc": 1.0},
    "morphologizer": {"pos_acc": 0.5, "morph_acc": 0.5, "morph_per_feat": None},
    "parser": {
        "dep_uas": 0.5,
        "dep_las": 0.5,
        "dep_las_per_type": None,
        "sents_f": 0.0,
        "sents_p": None,
        "sents_r": None,
    },
    "senter": {"sents_f": 1.0, "sents_p": 0.0, "sents_r": 0.0},
    "spancat": SPANS,
    "spancat_singlelabel": SPANS,
    # spaCy's own weights for it name scores that its scorer does not compute ("span_finder_sc_f").
    "span_finder": {
        **SPANS,
        "span_finder_sc_f": None,
        "span_finder_sc_p": None,
        "span_finder_sc_r": None,
    },
}


def training_config(
    base: str,
    *,
    lang: str = "en",
    pipeline: Sequence[str] = ("ner", "textcat"),
    device: str = "cpu",
    fitted: Fitted | None = None,
    steps: int | None = None,
    train: str | None = None,
    dev: str | None = None,
    pooling: str | None = None,
    multiple_choice: bool = False,
    **model: Any,
) -> Config:
    """Create a complete config for `spacy train`. Base and corpora need not exist.

    base (str): Folder or hub id of the base.
    lang (str): spaCy's code of the language.
    pipeline (Sequence[str]): The listening components, by their factory's name; see `KNOWN`.
    device (str): "cpu" or "gpu": decides the dtype, the batch sizes, and without `fitted` the learning rate and the
        number of steps.
    fitted (Fitted | None): Settings for the size of the base, see `training.fitted`.
    steps (int | None): The length of the training. The warm-up, the schedule of the learning rate and the distance
        between evaluations follow from it. None: as `fitted` or the device says.
    train (str | None), dev (str | None): Paths of the corpora; None: to be given to `spacy train`.
    pooling (str | None): "last", "mean", "max" or "attention": the classifier is `spacy-lsbillm.PooledTextCat.v1` with
        that pooling. None: spaCy's own.
    multiple_choice (bool): The documents are questions with choices: score the classifier by question.
    model (Any): Further settings of `spacy-lsbillm.BiLLMModel.v1`, such as `unmask`.
    RAISES (ValueError): The language, a component, the device, the number of steps or a setting of the model is not
        allowed.
    """
    check_language(lang)
    check_pipeline(pipeline)
    check_choice("device", device, DEVICES)
    chosen = DEVICES[device]
    if fitted is not None:
        chosen = _on_device(fitted, chosen, device)
        adapter = {**DEFAULT_LORA, "r": fitted.r, "alpha": fitted.alpha}
        model = {"learn_rate_scale": fitted.learn_rate_scale, "lora": adapter, **model}
    if steps is not None:
        length = schedule_of(steps)
        chosen = replace(chosen, steps=steps, warmup=length.warmup, eval_frequency=length.eval_frequency)
    blocks = {
        "paths": {"train": train, "dev": dev, "vectors": None, "init_tok2vec": None},
        "system": {"gpu_allocator": "pytorch", "seed": 0},
        "nlp": {"lang": lang, "pipeline": [TRANSFORMER, *pipeline], "batch_size": 256},
        "components": {TRANSFORMER: _transformer(base, chosen, model), **_components(pipeline, pooling)},
        "corpora": {name: _corpus(name) for name in ("train", "dev")},
        "training": _training(chosen, pipeline),
        "initialize": {"vectors": "${paths.vectors}", "init_tok2vec": "${paths.init_tok2vec}"},
    }
    if multiple_choice:
        _score_by_question(blocks, pipeline)
    # Read from a string, so that references to other sections are recognised and remain in the result.
    config = Config().from_str(Config(blocks).to_str(interpolate=False), interpolate=False)
    return load_model_from_config(config, auto_fill=True).config


def _on_device(fitted: Fitted, device: Device, name: str) -> Device:
    """The settings of a device, adapted to a base. Slower bases get fewer steps and smaller batches on a CPU."""
    if name == "cpu":
        device = replace(device, batch_words=fitted.cpu_batch_words, steps=fitted.cpu_steps)
    steps = device.steps
    return replace(
        device, learn_rate=fitted.learn_rate, warmup=int(steps * fitted.warmup), eval_frequency=max(1, steps // 10)
    )


@dataclass(frozen=True)
class Schedule:
    """What follows from the length of a training.

    warmup (int): Number of warm-up steps.
    eval_frequency (int): Steps between evaluations.
    """

    warmup: int
    eval_frequency: int


def schedule_of(steps: int) -> Schedule:
    """The schedule of a training of this length.

    A tenth of the steps is warm-up, and there are about six evaluations after the first step.

    RAISES (SettingError): It is not a whole number of at least 1.
    """
    check_at_least("steps", steps, 1)
    evaluations = next((number for number in EVALUATIONS if steps % number == 0), EVALUATIONS[0])
    return Schedule(warmup=-(-steps // 10), eval_frequency=max(1, steps // evaluations))


def check_language(lang: str) -> None:
    """Check the code of a language.

    RAISES (SettingError): spaCy does not have it.
    """
    try:
        get_lang_class(lang)
    except ImportError as error:
        raise SettingError(
            f'lang = {lang!r} is not a language that spaCy has. Use a code such as "en", "de" or "hr", or "xx" for '
            f"several languages or any other: https://spacy.io/usage/models#languages"
        ) from error


def check_pipeline(pipeline: Sequence[str]) -> None:
    """Check the components of a pipeline.

    RAISES (SettingError): There is no component, an unknown one, the same twice, or two that exclude each other.
    """
    known = ", ".join(KNOWN)
    if not pipeline:
        raise SettingError(f"the pipeline names no component. Name at least one of: {known}.")
    for name in pipeline:
        if name not in KNOWN:
            raise SettingError(
                f"there is no component {name!r} that can be put into a config here. Use some of: {known}. The "
                f"transformer is always included and need not be named. Add any other component to the config by hand."
            )
        if pipeline.count(name) > 1:
            raise SettingError(f"the pipeline names {name!r} more than once. Name each component once.")
    if CLEANER in pipeline and (pipeline[-1] != CLEANER or len(pipeline) == 1):
        raise SettingError(f"{CLEANER!r} drops the token vectors: name it last, after a component that listens.")
    for one, other, place in EXCLUSIVE:
        if one in pipeline and other in pipeline:
            raise SettingError(f"{one!r} and {other!r} both write to {place}. Choose one of them.")


def _transformer(base: str, device: Device, model: dict[str, Any]) -> dict[str, Any]:
    settings = {**DEFAULT_CONFIG["model"], "name": base, "dtype": device.dtype, **model}
    return {"factory": "billm_transformer", "max_batch_items": device.max_batch_items, "model": settings}


def _components(pipeline: Sequence[str], pooling: str | None) -> dict[str, Any]:
    models = dict(MODELS)
    if pooling is not None:
        if not CLASSIFIERS & set(pipeline):
            raise SettingError(f"pooling = {pooling!r} is for {' or '.join(sorted(CLASSIFIERS))}, which is not there.")
        models |= {name: _pooled(name == "textcat", pooling) for name in CLASSIFIERS}
    blocks: dict[str, dict[str, Any]] = {
        name: {"factory": name, "model": {**models[name], "tok2vec": LISTENER}} for name in _trained(pipeline)
    }
    if CLEANER in pipeline:
        blocks[CLEANER] = {"factory": CLEANER, "attrs": {"_.trf_data": None}, "silent": True}
    for name in CLASSIFIERS & blocks.keys():
        scorer = "spacy-lsbillm.textcat_scorer.v1"
        blocks[name]["scorer"] = {"@scorers": scorer, "multi_label": name == "textcat_multilabel"}
    if "span_finder" in blocks:
        blocks["span_finder"]["max_length"] = 25
    for name in _after_span_finder(pipeline):
        blocks[name]["suggester"] = {"@misc": "spacy.preset_spans_suggester.v1", "spans_key": "sc"}
    return blocks


def _score_by_question(blocks: dict[str, Any], pipeline: Sequence[str]) -> None:
    if list(pipeline) != ["textcat"]:
        raise SettingError(f"multiple choice needs the pipeline textcat, not {','.join(pipeline)}.")
    blocks["components"]["textcat"]["scorer"] = {"@scorers": "spacy-lsbillm.choice_scorer.v1"}
    blocks["training"]["score_weights"] = {"choice_acc": 1.0, "cats_micro_f": 0.0, "cats_score": 0.0}


def _trained(pipeline: Sequence[str]) -> list[str]:
    """The components of a pipeline that are trained."""
    return [name for name in pipeline if name != CLEANER]


def _after_span_finder(pipeline: Sequence[str]) -> list[str]:
    """The components that label the spans that a `span_finder` before them finds."""
    if "span_finder" not in pipeline:
        return []
    later = pipeline[list(pipeline).index("span_finder") + 1 :]
    return [name for name in later if name in ("spancat", "spancat_singlelabel")]


def _corpus(name: str) -> dict[str, Any]:
    return {"@readers": "spacy.Corpus.v1", "path": f"${{paths.{name}}}", "max_length": 0}


def _training(device: Device, pipeline: Sequence[str]) -> dict[str, Any]:
    return {
        "seed": "${system.seed}",
        "gpu_allocator": "${system.gpu_allocator}",
        "dropout": 0.1,
        "accumulate_gradient": 1,
        # The learning rate falls to zero over all steps: early stopping would end at a high rate.
        "patience": 0,
        "max_epochs": 0,
        "max_steps": device.steps,
        "eval_frequency": device.eval_frequency,
        "train_corpus": "corpora.train",
        "dev_corpus": "corpora.dev",
        "frozen_components": [],
        # A component that annotates listens to what the transformer has set on the documents.
        "annotating_components": [TRANSFORMER, "span_finder"] if _after_span_finder(pipeline) else [],
        "before_to_disk": {"@callbacks": "spacy-lsbillm.write_card.v1"},
        "batcher": {
            "@batchers": "spacy.batch_by_words.v1",
            "size": device.batch_words,
            "tolerance": 0.2,
            "discard_oversize": False,
        },
        "optimizer": {
            "@optimizers": "Adam.v1",
            "L2_is_weight_decay": True,
            "L2": 0.01,
            "grad_clip": 1.0,
            "use_averages": True,
            "learn_rate": {
                "@schedules": "warmup_linear.v1",
                "warmup_steps": device.warmup,
                "total_steps": device.steps,
                "initial_rate": device.learn_rate,
            },
        },
        "logger": {"@loggers": "spacy.ConsoleLogger.v3", "progress_bar": "train"},
        "score_weights": _score_weights(pipeline),
    }


def _score_weights(pipeline: Sequence[str]) -> dict[str, float | None]:
    weights: dict[str, float | None] = {}
    trained = _trained(pipeline)
    for name in trained:
        for score, weight in SCORES[name].items():
            # Two components may share a score.
            weights[score] = None if weight is None else round((weights.get(score) or 0) + weight / len(trained), 2)
    return weights
