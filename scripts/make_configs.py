"""Write the configs of this repository, which are generated because they share most of their parts.

    python scripts/make_configs.py configs

Those of pipelines are for the embedded base: on a CPU, without dropout in the adapter because the model is so small,
and with the base stored in the pipeline. Those in pretraining/ are the configs with which that base and the encoder of
the same shape were trained.
"""

import argparse
from pathlib import Path
from typing import Any

from thinc.api import Config

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.files import write_text
from spacy_lsbillm.pretraining import PretrainingSettings
from spacy_lsbillm.training.config import training_config

# The components of each pipeline, and further arguments of `training_config`.
PIPELINES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "default": (["ner", "textcat"], {}),
    "ner": (["ner"], {}),
    "textcat": (["textcat"], {}),
    "textcat_multilabel": (["textcat_multilabel"], {}),
    "spancat": (["spancat"], {}),
    "sequence_labeler": (["sequence_labeler"], {}),
    "span_labeler": (["span_labeler"], {}),
    "sequence_labeler_textcat": (["sequence_labeler", "textcat"], {"pooling": "mean"}),
    "pooled_textcat": (["textcat"], {"pooling": "mean"}),
    "pooled_textcat_multilabel": (["textcat_multilabel"], {"pooling": "mean"}),
    "multiple_choice": (["textcat"], {"pooling": "mean", "multiple_choice": True}),
}


# The settings of configs/real.cfg: a pretrained LLM of about a hundred million parameters, tuned for four epochs on
# 1,000 examples, about 15 minutes on one CPU core. The rates are those that init-config chooses for this size.
REAL = {
    "corpora.train.limit": 1000,
    "training.batcher.size": 150,
    "training.max_steps": 240,
    # Scoring takes as long as 18 steps. The development set cannot be shortened, because it is sorted by intent.
    "training.eval_frequency": 120,
    "training.optimizer.learn_rate.total_steps": 240,
    "training.optimizer.learn_rate.warmup_steps": 24,
    "training.optimizer.learn_rate.initial_rate": 0.004,
    "components.transformer.model.learn_rate_scale": 0.25,
    # SmolLM2's tokenizer adds no start token, but the model learns better with one (docs/choosing-settings.md).
    "components.transformer.model.add_bos_token": True,
}

PRETRAINING = {"base": "clm", "base_mlm": "mlm"}


def config_texts() -> dict[str, str]:
    """The text of each config, by its path."""
    pipelines = {f"{name}.cfg": pipeline_config(name) for name in PIPELINES}
    pipelines["real.cfg"] = real_config()
    return pipelines | {f"pretraining/{name}.cfg": pretraining_config(name) for name in PRETRAINING}


def pretraining_config(name: str) -> str:
    """The text of configs/pretraining/NAME.cfg."""
    settings = PretrainingSettings.read({"training": {"objective": PRETRAINING[name], "compile": True}})
    return Config(settings.as_sections()).to_str() + "\n"


def pipeline_config(name: str) -> str:
    """The text of configs/NAME.cfg."""
    pipeline, settings = PIPELINES[name]
    config = training_config(
        "assets/base",
        pipeline=pipeline,
        train="corpus/train.spacy",
        dev="corpus/dev.spacy",
        store_base="copy",
        lora={**DEFAULT_LORA, "dropout": 0.0},
        **settings,
    )
    return config.to_str(interpolate=False) + "\n"


def real_config() -> str:
    """The text of configs/real.cfg."""
    config = training_config(
        "models/smollm2",
        pipeline=["sequence_labeler", "textcat"],
        pooling="mean",
        train="corpus/train.spacy",
        dev="corpus/dev.spacy",
        lora={**DEFAULT_LORA, "dropout": 0.0},
    )
    config = Config().from_str(config.to_str(interpolate=False), interpolate=False, overrides=REAL)
    return config.to_str(interpolate=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write the configs")
    folder = parser.parse_args().folder
    for path, text in config_texts().items():
        write_text(folder / path, text)


if __name__ == "__main__":
    main()
