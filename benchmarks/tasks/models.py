"""The models that are compared, and their configs.

For one kind of task, all models have the same budget, and the same head if they can use it.
"""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

from spacy.cli.init_config import init_config
from thinc.api import Config

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.backbone import BaseSettings, longest_position
from spacy_lsbillm.backbone.base_config import read_config
from spacy_lsbillm.backbone.location import resolve_folder
from spacy_lsbillm.backbone.size import size_of
from spacy_lsbillm.backbone.tokenizer import load_tokenizer
from spacy_lsbillm.training.config import training_config
from spacy_lsbillm.training.fitted import fitted_to

from .encoder import MINILM, tuned_whole

# In pieces: the longest window of the two shipped bases.
LONGEST_WINDOW = 256
BASE, ENCODER = "assets/base", "assets/base_mlm"
# The same shape with random weights, made by `benchmarks.pretrained` when it is needed.
RANDOM = "benchmarks/work/random_base"


@dataclass(frozen=True)
class Budget:
    """The length of a training, the same for all models.

    epochs (int): Epochs over the training examples; the model is scored on dev after each.
    batch (int): The maximum number of documents per optimizer step.
    steps (int): The minimum number of steps per epoch; small training sets have smaller batches.
    """

    epochs: int = 4
    batch: int = 16
    steps: int = 25

    def batch_of(self, n_examples: int) -> int:
        """The number of documents per optimizer step for a training set of this size."""
        return max(1, min(self.batch, n_examples // self.steps))


@dataclass(frozen=True)
class Tuned:
    """The settings that were chosen on two development sets, see docs/results.md.

    rate (float): The peak learning rate of the heads and of all other weights but the adapter.
    scale (float): The adapter's learning rate in units of `rate`.
    pooling (str): How a classifier pools.
    warmup (float): The share of the steps over which the rate rises from 0.
    add_bos_token (bool | None): The transformer's setting of that name.
    """

    rate: float
    scale: float = 1.0
    pooling: str = "mean"
    warmup: float = 0.1
    add_bos_token: bool | None = None


LLM = Tuned(rate=0.008, scale=0.5)
# Chosen on WNUT-17 only.
NER = Tuned(rate=0.016, scale=0.25)
CNN = Tuned(rate=0.001)

# The modules that an adapter can be on, as peft's `target_modules`: names of the Llama family, to which the tuned bases
# belong.
MODULES: dict[str, str | list[str]] = {
    "all": DEFAULT_LORA["target_modules"],
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "query-value": ["q_proj", "v_proj"],
}

OURSELVES, STOCK = "spacy-lsbillm", "spacy-transformers"
PROMPTED, WRITTEN = "prompted", "tuned"
# A multiple-choice question consists of several documents, so it cannot be answered with JSON.
ANSWERED = ("sequence", "single", "multi")

# The component for each kind of task, and the score by which models are chosen and compared.
COMPONENT = {"sequence": "sequence_labeler", "single": "textcat", "multi": "textcat_multilabel", "choice": "textcat"}
SCORE = {"sequence": "ents_f", "single": "cats_micro_f", "multi": "cats_micro_f", "choice": "choice_acc"}


@dataclass(frozen=True)
class Compared:
    """A column of the table.

    words (str): A description of the model.
    base (str | None): The base; None for spaCy's own CNN.
    unmask (str): The mask: which layers are bidirectional.
    component (str | None): The head, if it is not the default of the kind of task.
    depth (int | None): How many of the base's layers are used; None for all.
    repeat (int): The number of copies of the text before the one whose states count.
    unmask_rounds (float): The number of epochs over which the right side opens, see `unmask_warmup`.
    library (str): The library between spaCy and the base: this project, with an adapter, or spacy-transformers, which
        tunes all weights.
    answer (str | None): "prompted" or "tuned" if the base writes its answers as JSON, see `benchmarks.tasks.written`;
        None if a pipeline predicts them.
    shots (int): The number of examples in a prompt.
    rank (int | None): The adapter's rank; None for the default.
    modules (str): The modules that the adapter is on, a key of `MODULES`.
    transitions (str | None): The setting of the `sequence_labeler`. Most tables began before it could be "learned";
        `benchmarks.crf` compares both.
    kinds (tuple[str, ...]): The kinds of tasks that the model can do.
    tuned (Tuned): The settings that were chosen for it.
    """

    words: str
    base: str | None = BASE
    unmask: str = "all"
    component: str | None = None
    depth: int | None = None
    repeat: int = 0
    unmask_rounds: float = 0.0
    library: str = OURSELVES
    answer: str | None = None
    shots: int = 0
    rank: int | None = None
    modules: str = "all"
    transitions: str | None = None
    kinds: tuple[str, ...] = tuple(COMPONENT)
    tuned: Tuned = LLM


@dataclass(frozen=True)
class Cell:
    """One training of a table.

    name (str): The name of the cell in the table, such as "snips_slots/causal/0".
    set_name (str), model_name (str): The names of its row and column.
    seed (int): The seed of the training.
    model (Compared): The model that is trained.
    """

    name: str
    set_name: str
    model_name: str
    seed: int
    model: Compared


MODELS: dict[str, Compared] = {
    "causal": Compared("the decoder, causal", unmask="none"),
    "bidirectional": Compared("the decoder, all layers unmasked"),
    "encoder": Compared("the encoder of the same shape, text and number of tokens", base=ENCODER),
    "cnn": Compared("spaCy's tok2vec CNN", base=None, tuned=CNN),
    "bidirectional_ner": Compared(
        "the decoder, all layers unmasked, under spaCy's transition-based ner",
        component="ner",
        kinds=("sequence",),
        tuned=NER,
    ),
}
# Columns of another table, on the value of pre-training, see `benchmarks.pretrained`. An adapter of full rank can turn
# the random weights of all linear layers into any others. Random weights learn nothing with the settings of the other
# models.
PRETRAINED = {
    "pretrained": Compared("the embedded base"),
    "random": Compared("the same architecture from random weights", base=RANDOM, tuned=Tuned(0.008, 0.125)),
    "random_full_rank": Compared(
        "the same, with an adapter of full rank", base=RANDOM, rank=192, tuned=Tuned(0.008, 0.0625)
    ),
}
# Columns that must be named to be included.
BASELINES = {
    "minilm": Compared(
        "MiniLM, an encoder of 22M parameters, tuned whole by spacy-transformers",
        base=MINILM,
        library=STOCK,
        tuned=Tuned(rate=0.0005),
    ),
    "prompted0": Compared("the LLM, asked for JSON without an example", answer=PROMPTED, kinds=ANSWERED),
    "prompted5": Compared("the LLM, asked with five examples", answer=PROMPTED, shots=5, kinds=ANSWERED),
    "written": Compared("the LLM, tuned to write JSON", answer=WRITTEN, kinds=ANSWERED),
}
ALL_MODELS = ChainMap(MODELS, PRETRAINED, BASELINES)


def on_base(base: str, models: Mapping[str, Compared]) -> dict[str, Compared]:
    """Move the models over the embedded base to another base, with the settings chosen for its size.

    base (str): The embedded base, or a folder.
    RETURNS (dict[str, Compared]): All models; those over other bases are unchanged.
    """
    tuned = tuned_for(base)
    return {
        name: replace(model, base=base, tuned=tuned) if base != BASE and model.base == BASE else model
        for name, model in models.items()
    }


def depths_of(base: str, depths: Sequence[int] | None = None) -> dict[str, Compared]:
    """Models that use the first layers of a base, see `benchmarks.depth`.

    depths (Sequence[int] | None): Numbers of layers; None for every number from 1 to all of its layers.
    """
    numbers = depths or range(1, layers_of(base) + 1)
    return on_base(base, {f"depth{depth}": Compared(f"its first {depth} layers", depth=depth) for depth in numbers})


def tuned_for(base: str) -> Tuned:
    """The settings that were chosen for bases of this size."""
    if base == BASE:
        return LLM
    folder = resolve_folder(base)
    fitted = fitted_to(size_of(folder))
    # If the tokenizer names a start token, each text gets one, whether the tokenizer adds it by itself or not.
    begins = True if load_tokenizer(folder).bos_token is not None else None
    return Tuned(fitted.learn_rate, fitted.learn_rate_scale, warmup=fitted.warmup, add_bos_token=begins)


def layers_of(base: str) -> int:
    """The number of layers of a base."""
    return int(_config(base).num_hidden_layers)


def make_config(
    model: Compared,
    kind: str,
    paths: dict[str, str],
    n_examples: int,
    budget: Budget,
    seed: int,
    device: str | None = None,
) -> Config:
    """A complete training config.

    paths (dict): The paths of the training and the development corpus, by split.
    n_examples (int): The number of documents in the training corpus.
    device (str | None): The device of the base, as in the setting of that name; spaCy and the heads stay on the CPU.
    """
    tuned = model.tuned
    batch = budget.batch_of(n_examples)
    steps_an_epoch = -(-n_examples // batch)
    steps = steps_an_epoch * budget.epochs
    if model.base is None:
        config = _cnn(kind, paths)
    else:
        config = training_config(
            model.base,
            pipeline=[model.component or COMPONENT[kind]],
            train=paths["train"],
            dev=paths["dev"],
            pooling=None if kind == "sequence" else tuned.pooling,
            multiple_choice=kind == "choice",
            unmask=model.unmask,
            depth=model.depth,
            repeat=model.repeat,
            unmask_warmup=round(steps_an_epoch * model.unmask_rounds),
            learn_rate_scale=tuned.scale,
            lora=lora_of(model),
            window=_window(model.base, model.repeat),
            overlap=16,
            add_bos_token=tuned.add_bos_token,
        )
        config["components"]["transformer"]["model"]["device"] = device
        if kind == "sequence" and model.component is None:
            config["components"][COMPONENT[kind]]["transitions"] = model.transitions
    if model.base is not None and model.library == STOCK:
        config = tuned_whole(config, model.base)
    training: dict[str, Any] = config["training"]
    config["system"]["seed"] = seed
    training |= {
        "seed": seed,
        "dropout": 0.1,
        "accumulate_gradient": 1,
        "patience": 0,
        "max_epochs": 0,
        "max_steps": steps,
        "eval_frequency": steps_an_epoch,
        "batcher": {"@batchers": "spacy.batch_by_sequence.v1", "size": batch, "get_length": None},
        # spaCy adds the components' own weights to those that are set, unless they are switched off by name.
        "score_weights": {**dict.fromkeys(training["score_weights"]), SCORE[kind]: 1.0},
    }
    # spaCy's default config does not use averages.
    training["optimizer"]["use_averages"] = True
    training["optimizer"]["learn_rate"] = {
        "@schedules": "warmup_linear.v1",
        "warmup_steps": max(1, int(steps * tuned.warmup)),
        "total_steps": steps,
        "initial_rate": tuned.rate,
    }
    return config


def _window(base: str, repeat: int) -> int:
    """The longest window, in pieces: what the base was made for divided by the number of copies, but at most 256.

    Sentences and questions are then seen as a whole.
    """
    longest = longest_position(_config(base))
    return LONGEST_WINDOW if longest is None else min(longest // (repeat + 1), LONGEST_WINDOW)


def _config(base: str) -> Any:
    return read_config(resolve_folder(base), BaseSettings(base))


def lora_of(model: Compared) -> dict[str, Any]:
    """The default adapter without dropout.

    At another rank, updates are scaled as in rsLoRA (Kalajdzievski, 2023), so that they have the same size: alpha /
    sqrt(r) stays the same.
    """
    lora = {**DEFAULT_LORA, "dropout": 0.0, "target_modules": MODULES[model.modules]}
    if model.rank is not None:
        lora |= {"r": model.rank, "alpha": round(lora["alpha"] * sqrt(model.rank / lora["r"]))}
    return lora


def _cnn(kind: str, paths: dict[str, str]) -> Config:
    """The config that `spacy init config` writes for a CPU, without static vectors, which would be a download."""
    component = {"sequence": "ner"}.get(kind, COMPONENT[kind])
    config = init_config(lang="en", pipeline=[component], optimize="accuracy", gpu=False)
    config["paths"] |= {**paths, "vectors": None}
    config["initialize"]["vectors"] = None
    config["components"]["tok2vec"]["model"]["embed"]["include_static_vectors"] = False
    if kind == "choice":
        config["components"]["textcat"]["scorer"] = {"@scorers": "spacy-lsbillm.choice_scorer.v1"}
    return config
