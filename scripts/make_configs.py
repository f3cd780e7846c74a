"""Write the configs of this repository. They share most of their parts, so they are generated.

    python scripts/make_configs.py configs

They are for the embedded base: a CPU, no dropout in the adapter of so small a model, and the base stored with the
pipeline.
"""

import argparse
from pathlib import Path

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.cli.output import write_text
from spacy_lsbillm.training_config import training_config

PIPELINES = {
    "default": ["ner", "textcat"],
    "ner": ["ner"],
    "textcat": ["textcat"],
    "textcat_multilabel": ["textcat_multilabel"],
    "spancat": ["spancat"],
}


def config_text(name: str) -> str:
    """The text of configs/NAME.cfg."""
    config = training_config(
        "assets/base",
        pipeline=PIPELINES[name],
        train="corpus/train.spacy",
        dev="corpus/dev.spacy",
        store_base="copy",
        lora={**DEFAULT_LORA, "dropout": 0.0},
    )
    return config.to_str(interpolate=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write the configs")
    folder = parser.parse_args().folder
    for name in PIPELINES:
        write_text(folder / f"{name}.cfg", config_text(name))


if __name__ == "__main__":
    main()
