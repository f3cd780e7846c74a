"""Prove every family of causal language models that the installed transformers has, and record the results.

    python scripts/prove_families.py [MODEL_TYPE ...]

Each default config, and the variants in `VARIANTS`, is proved on a small random copy in a process of its own
(`spacy_lsbillm.backbone.proof`). The results are written into `spacy_lsbillm/backbone/proved.json` under the minor
version of transformers; those of other versions and other families are kept. docs/families.md is written from all of
them. Run it once in an environment of each supported version; it takes about ten minutes on one core. Single types can
only be proved on a version that the file already has.
"""

import json
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from spacy_lsbillm.backbone import proved
from spacy_lsbillm.backbone.config_file import text_config
from spacy_lsbillm.backbone.proof import prove
from spacy_lsbillm.backbone.variants import variant_of
from spacy_lsbillm.errors import BaseError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "families.md"
RESULT = ROOT / "spacy_lsbillm" / "backbone" / proved.FILE
SECONDS = 90
# Settings that every checkpoint of a type has, but its default config does not.
USUAL: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
}
# Settings of well-known checkpoints that belong to another variant of a type.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "falcon": [{"alibi": True}],
    "mistral": [{"sliding_window": None}],
    "mixtral": [{"sliding_window": 4096}],
    "phi3": [{"sliding_window": 2047}],
    "qwen2": [{"use_sliding_window": True}],
    "qwen3": [{"use_sliding_window": True}],
    "starcoder2": [{"sliding_window": 4096}],
    "cohere2": [{"sliding_window": 4096}],
}


def main(types: Sequence[str]) -> None:
    """Prove these types, or all, and write the results and the page.

    RAISES (SystemExit): Types are named, but the file does not have the installed version: it would then claim that all
        other types are unknown there. Or transformers does not know a type.
    """
    known = json.loads(RESULT.read_text(encoding="utf8"))
    version = proved.minor_version()
    if types and version not in known:
        sys.exit(
            f"{RESULT.name} has transformers {', '.join(known)}, not {version}. Run this with one of these, or without "
            f"MODEL_TYPE to prove every type on {version}."
        )
    unknown = sorted(set(types) - set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    if unknown:
        sys.exit(f"transformers {version} has no causal language model of type {unknown[0]}: check the spelling.")
    torch.set_num_threads(1)
    wanted = list(types) or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    found: dict[str, dict[str, Any]] = {}
    for model_type in tqdm(wanted, unit=" types"):
        for settings in ({}, *VARIANTS.get(model_type, [])):
            variant, result = prove_apart(model_type, {**USUAL.get(model_type, {}), **settings})
            found[variant] = result
            tqdm.write(f"{variant}: {result.get('refused', 'works')}")
    everything = {**(known.get(version, {}) if types else {}), **found}
    known[version] = dict(sorted(everything.items()))
    RESULT.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf8")
    PAGE.write_text(page(known), encoding="utf8")


def prove_apart(model_type: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Prove a type in a process of its own, because some models crash and some never end."""
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    process = context.Process(target=_into, args=(queue, model_type, settings), daemon=True)
    process.start()
    try:
        return queue.get(timeout=SECONDS)
    except Empty:
        return model_type, {"refused": f"a small copy did not run within {SECONDS} seconds"}
    finally:
        process.kill()
        process.join()


def _into(queue: Any, model_type: str, settings: dict[str, Any]) -> None:
    try:
        queue.put(result_of(model_type, settings))
    except Exception as error:
        queue.put((model_type, {"refused": f"{type(error).__name__}: {_first_line(error)}"}))


def result_of(model_type: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The variant, and its entry in `proved.json`."""
    try:
        config = text_config(AutoConfig.for_model(model_type, **settings))
    except Exception as error:
        return model_type, {"refused": f"its config cannot be made: {type(error).__name__}: {_first_line(error)}"}
    variant = variant_of(config) if config.model_type == model_type else model_type
    try:
        proof = prove(config, model_type)
    except BaseError as error:
        return variant, {"refused": str(error)}
    if proof.family is None:
        return variant, {"refused": proof.reason}
    return variant, {"family": proof.family.as_block(), "type": config.model_type}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no details"


# Well-known names of a type's checkpoints.
KNOWN_AS = {
    "bloom": "BLOOM",
    "cohere": "Command R",
    "cohere2": "Command R7B, Command A",
    "deepseek_v3": "DeepSeek V3",
    "exaone4": "EXAONE 4",
    "falcon": "Falcon",
    "gemma": "Gemma 1",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3 with vision: its language part",
    "gemma3_text": "Gemma 3 1B and 270M",
    "gemma4": "Gemma 4 with vision: its language part",
    "glm4": "GLM-4",
    "gpt2": "GPT-2",
    "gpt_bigcode": "SantaCoder, StarCoder",
    "gpt_neo": "GPT-Neo",
    "gpt_neox": "Pythia, GPT-NeoX",
    "gpt_oss": "gpt-oss",
    "gptj": "GPT-J",
    "granite": "Granite 3",
    "helium": "Helium",
    "llama": "Llama 1 to 3, SmolLM2, and many others",
    "mamba": "Mamba",
    "ministral3": "Ministral 3",
    "mistral": "Mistral 7B",
    "mixtral": "Mixtral",
    "modernbert-decoder": "Ettin decoders",
    "mpt": "MPT",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "olmoe": "OLMoE",
    "opt": "OPT",
    "phi": "Phi 1 and 2",
    "phi3": "Phi 3 and 4",
    "qwen2": "Qwen 2 and 2.5",
    "qwen3": "Qwen 3",
    "qwen3_5": "Qwen 3.5",
    "qwen3_moe": "Qwen 3 mixtures of experts",
    "smollm3": "SmolLM3",
    "stablelm": "StableLM",
    "starcoder2": "StarCoder2",
}
INTRODUCTION = """# Families

A base model can be used if its causal mask can be removed, layer by layer, without changing anything else. That is
tested, not assumed: on a small copy of the base's config with random weights (the same classes, switches and kinds of
layers; few layers, small widths), in a second or two, before the weights are read. [masks.md](masks.md) lists the
checks. A base that passes is used; one that fails is refused, and the message contains the measurements. To test a base
from a folder or from the hub without its weights:

```
python -m spacy lsbillm check-base Qwen/Qwen2.5-0.5B
```

The tables below are the results of `python scripts/prove_families.py` for the default config of every causal language
model in these versions of transformers. They ship with the package, so a base whose config has the same switches is
not tested again. A base with another switch, such as a sliding window, is another variant, which is tested when it is
loaded. With other versions of transformers, every base is tested.

Random weights say nothing about scores. To find out which of these models are worth using, see [choosing a
base](choosing-a-base.md) and [results.md](results.md). Two were tried with real weights: SmolLM2 135M (`llama`) and
Gemma 3 270M (`gemma3_text`).
"""
LEGEND = """Each cell lists the attention implementations that
compute what the model was trained with; the first is the default. An asterisk (*) means that each short text gets its
own padded row, because the model cannot separate texts that share one. A setting after the name marks a variant.
"""
NOTES = """
In a mixture of experts, `target_modules = "all-linear"` means the linear layers of the attention: transformers 4 and 5
store experts in different forms, so an adapter on them could not be transferred. From a multimodal checkpoint only the
language part is loaded.
"""


def page(known: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The text of docs/families.md.

    known (dict): The content of `proved.json`.
    """
    versions = sorted(known, key=lambda version: [int(part) for part in version.split(".")])
    variants = sorted({variant for found in known.values() for variant in found})
    working = [name for name in variants if any("family" in known[version].get(name, {}) for version in versions)]
    counts = ", ".join(
        f"{sum('family' in found and ' ' not in name for name, found in known[version].items())} of "
        f"{sum(' ' not in name for name in known[version])} on transformers {version}"
        for version in versions
    )
    heads = [f"transformers {version}" for version in versions]
    lines = [
        INTRODUCTION,
        f"## What works\n\n{counts}. {LEGEND}",
        f"| `model_type` | known as | {' | '.join(heads)} |",
        "|---|---|" + "---|" * len(versions),
    ]
    for name in working:
        cells = [_cell(known[version].get(name)) for version in versions]
        lines.append(f"| `{name}` | {KNOWN_AS.get(name, '')} | {' | '.join(cells)} |")
    lines += [
        NOTES,
        "## What is refused, and what was measured\n",
        "Each cell has the check that failed, and what was found instead.\n",
        f"| `model_type` | {' | '.join(heads)} |",
        "|---|" + "---|" * len(versions),
    ]
    for name in [name for name in variants if name not in working]:
        cells = [_escaped(known[version].get(name, {}).get("refused", "")) for version in versions]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if "refused" in found:
        return f"refused: {_escaped(found['refused'])}"
    family = found["family"]
    return ", ".join(family["attentions"]) + ("" if family["packs"] else " *")


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    main(sys.argv[1:])
