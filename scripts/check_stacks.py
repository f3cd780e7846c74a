"""Check that a pipeline saved with one version of transformers gives the same vectors with another.

    python scripts/check_stacks.py save FOLDER      in one environment
    python scripts/check_stacks.py load FOLDER      in another

`save` trains a few steps over small random bases of several families and stores each pipeline in every form, with its
vectors. `load` loads all of them and compares. The exit status is 1 if a vector differs by more than 1e-5.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
import transformers
from spacy.training import Example
from thinc.api import Adam
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["book a table for two at an italian place in boston tomorrow night", "will it rain ?", ""]
TOLERANCE = 1e-5
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
HALF = ["sliding_attention", "full_attention"] * 2
# Families that both versions have, with all kinds of positions. Each version writes its own keys into config.json.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 5e5, "rope_scaling": LLAMA3},
    "qwen3": {"head_dim": 16, "rope_theta": 1e6},
    "gemma3_text": {"head_dim": 16, "sliding_window": 8, "layer_types": HALF, "rope_theta": 1e6},
    "gpt_neox": {"rotary_pct": 0.5, "rotary_emb_base": 2e4},
    "gpt2": {"n_embd": 64, "n_layer": 4, "n_head": 4},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def make_base(family: str, folder: Path) -> None:
    """Write a base with random weights and the tokenizer of the embedded one."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "assets" / "base")
    shape = {} if family == "gpt2" else SHAPE
    torch.manual_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = AutoConfig.for_model(family, **shape, **FAMILIES[family], **special, vocab_size=len(tokenizer))
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_pipeline(base: Path, store_base: str) -> spacy.Language:
    """A pipeline whose adapter was trained for a few steps."""
    nlp = spacy.blank("en")
    model = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(base), "store_base": store_base}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": {**model, "lora": {"r": 4, "dropout": 0.0}}})
    listener = {"@architectures": "spacy-transformers.TransformerListener.v1"}
    listener |= {"grad_factor": 1.0, "pooling": {"@layers": "reduce_mean.v1"}}
    head = {"@architectures": "spacy-lsbillm.SequenceLabeler.v1", "tok2vec": listener}
    nlp.add_pipe("sequence_labeler", config={"model": head})
    start = TEXTS[0].index("boston")
    example = Example.from_dict(nlp.make_doc(TEXTS[0]), {"entities": [(start, start + len("boston"), "CITY")]})
    nlp.initialize(lambda: [example])
    optimizer = Adam(0.01)
    for _ in range(3):
        nlp.update([example], sgd=optimizer)
    return nlp


def vectors(nlp: spacy.Language) -> np.ndarray:
    """The vectors of all tokens of the texts, shape (tokens, width)."""
    docs = [doc for doc in nlp.pipe(TEXTS) if len(doc)]
    return np.concatenate([doc._.trf_data.model_output.last_hidden_state[0] for doc in docs])


def save(folder: Path) -> None:
    """Save the pipelines and their vectors."""
    for family in FAMILIES:
        if family not in CONFIG_MAPPING:
            continue
        base = folder / family / "base"
        make_base(family, base)
        for store_base in ("reference", "copy", "merged"):
            nlp = make_pipeline(base, store_base)
            nlp.to_disk(folder / family / store_base)
            np.save(folder / family / f"{store_base}.npy", vectors(nlp))
    print(f"saved with transformers {transformers.__version__}")


def load(folder: Path) -> int:
    """Load the pipelines and compare their vectors.

    RETURNS (int): The exit status.
    """
    largest = 0.0
    for path in sorted(folder.glob("*/*.npy")):
        expected = np.load(path)
        found = float(np.abs(vectors(spacy.load(path.with_suffix(""))) - expected).max())
        largest = max(largest, found)
        print(f"{path.parent.name} {path.stem}: largest difference {found:.1e}")
    if largest > TOLERANCE or not list(folder.glob("*/*.npy")):
        print(f"with transformers {transformers.__version__} vectors differ by more than {TOLERANCE}")
        return 1
    print(f"equal with transformers {transformers.__version__}")
    return 0


if __name__ == "__main__":
    command, where = sys.argv[1], Path(sys.argv[2])
    if command == "save":
        save(where)
    else:
        raise SystemExit(load(where))
