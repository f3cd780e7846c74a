"""Check on a machine with a GPU that results are the same as on the CPU, which the tests, which need no GPU, cannot do.

    python scripts/check_gpu.py BASE [--depth N] [--output FILE]

A labeler and a classifier are trained on assets/snips for some updates and predict the development set, once for each
way to use a GPU: only the base on it (`device = "cuda"`), all of spaCy on it (with CuPy, if it is installed), bfloat16,
NF4 and repetition. Token vectors, losses and predictions are compared with the CPU, each pipeline is saved and loaded,
and words per second are measured. The exit status is 1 if something failed or differs too much from the CPU.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import fix_random_seed, minibatch
from thinc.api import NumpyOps, set_current_ops
from thinc.util import has_cupy_gpu
from tqdm import tqdm

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.backbone.location import resolve_folder
from spacy_lsbillm.backbone.size import size_of
from spacy_lsbillm.data import labels_of, make_doc, read_records
from spacy_lsbillm.training.config import training_config
from spacy_lsbillm.training.fitted import fitted_to

ROOT = Path(__file__).resolve().parent.parent
SNIPS = ROOT / "assets" / "snips"
HEADS = ("sequence_labeler", "textcat")
# The largest allowed difference from the CPU in float32: of vectors and probabilities, in units of the largest one, and
# of the losses of a training, whose differences grow with each update.
VECTORS, LOSSES = 1e-3, 0.05
UPDATES, BATCH, TEXTS = 30, 16, 200

# Settings of the model, and whether spaCy and the heads are on the GPU as well, by the name of the way.
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "cpu": ({}, False),
    "cuda": ({"device": "cuda"}, False),
    "cuda, repeat": ({"device": "cuda", "repeat": 1, "unmask": "none"}, False),
    "cuda, eager": ({"device": "cuda", "attention": "eager"}, False),
    "cuda, bfloat16": ({"device": "cuda", "dtype": "bfloat16"}, False),
    "cuda, nf4": ({"device": "cuda", "dtype": "bfloat16", "quantization": "nf4"}, False),
    "cuda, 8-bit optimizer": ({"device": "cuda", "adapter_optimizer": "adamw_8bit"}, False),
    "cuda, checkpointing": ({"device": "cuda", "gradient_checkpointing": True}, False),
    "all on cuda": ({}, True),
    "all on cuda, bfloat16": ({"dtype": "bfloat16"}, True),
}
# Ways that do not compute the same as float32 on the CPU: it is only checked that they learn.
OTHERWISE = ("repeat", "bfloat16", "nf4", "8-bit")


def examples(nlp: Language, split: str, number: int) -> list[Example]:
    """Return sentences from all over a split, with their slots and intents."""
    slots, intents = (list(read_records(SNIPS / f"{split}.{suffix}")) for suffix in ("iob", "jsonl"))
    spans, classes = labels_of(slots), labels_of(intents)
    found = []
    for slot, intent in zip(slots, intents, strict=True):
        gold = make_doc(nlp, slot, spans)
        gold.cats = make_doc(nlp, intent, classes).cats
        found.append(Example(Doc(nlp.vocab, [t.text for t in gold], [bool(t.whitespace_) for t in gold]), gold))
    step = max(1, len(found) // number)
    return found[::step][:number]


def make_pipeline(base: str, depth: int | None, settings: dict[str, Any]) -> Language:
    """Make an untrained pipeline."""
    config = training_config(
        base,
        pipeline=HEADS,
        pooling="mean",
        train=None,
        dev=None,
        fitted=fitted_to(size_of(resolve_folder(base))),
        depth=depth,
        lora={**DEFAULT_LORA, "dropout": 0.0},
    )
    config["components"]["transformer"]["model"] |= settings
    fix_random_seed(0)
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    gold = examples(nlp, "train", 1000)
    nlp.initialize(lambda: gold)
    return nlp


def words_per_second(act: Callable[[], Any], words: int, on_gpu: bool) -> float:
    """Return the best rate of three calls, after a first call, which loads and compiles."""
    best = float("inf")
    for number in range(4):
        begun = time.perf_counter()
        act()
        if on_gpu:
            torch.cuda.synchronize()
        if number:
            best = min(best, time.perf_counter() - begun)
    return words / best


def vectors_of(nlp: Language, texts: list[str]) -> np.ndarray:
    """Return the token vectors of the transformer, one array for all texts."""
    found = []
    for doc in nlp.pipe(texts):
        data = doc._.trf_data.model_output.last_hidden_state
        data = data.get() if hasattr(data, "get") else np.asarray(data)
        found.append(data.reshape(-1, data.shape[-1]))
    return np.concatenate(found)


def answers_of(nlp: Language, texts: list[str]) -> list[Any]:
    """Return the entities and the class of each text."""
    return [
        ([(ent.start, ent.end, ent.label_) for ent in doc.ents], max(doc.cats, key=lambda label: doc.cats[label]))
        for doc in nlp.pipe(texts)
    ]


def run_way(base: str, depth: int | None, settings: dict[str, Any], all_there: bool) -> dict[str, Any]:
    """Run one way and return the measurements."""
    if all_there:
        spacy.require_gpu()
    else:
        spacy.require_cpu()
        set_current_ops(NumpyOps(use_blis=False))
    on_gpu = all_there or settings.get("device") == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    nlp = make_pipeline(base, depth, settings)
    train, dev = examples(nlp, "train", UPDATES * BATCH), examples(nlp, "dev", TEXTS)
    texts = [example.text for example in dev]
    found: dict[str, Any] = {"vectors": vectors_of(nlp, texts[:50]), "losses": []}
    optimizer = nlp.create_optimizer()
    optimizer.learn_rate = 0.002
    for batch in minibatch(train, BATCH):
        losses: dict[str, float] = {}
        nlp.update(batch, sgd=optimizer, losses=losses)
        found["losses"].append(float(sum(losses.values())))
    with tempfile.TemporaryDirectory() as folder:
        nlp.to_disk(folder)
        again = spacy.load(folder)
    answers, stored = answers_of(nlp, texts), answers_of(again, texts)
    # Loaded pipelines have their adapter folded in, so the last digits differ.
    found["kept"] = sum(one == other for one, other in zip(answers, stored, strict=True)) / len(texts)
    scores = again.evaluate(dev)
    found |= {"slots": scores["ents_f"], "intents": scores["cats_micro_f"], "answers": stored}
    many = (texts * 10)[:2000] if on_gpu else texts
    words = sum(len(nlp.make_doc(text)) for text in many)
    found["predicted"] = words_per_second(lambda: list(again.pipe(many, batch_size=256)), words, on_gpu)
    batches = list(minibatch(train[: 10 * BATCH], BATCH))
    words = sum(len(example) for batch in batches for example in batch)
    found["trained"] = words_per_second(lambda: [nlp.update(batch, sgd=optimizer) for batch in batches], words, on_gpu)
    if on_gpu:
        found["memory"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def main() -> None:
    """Run the ways, compare them with the CPU, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the folder of a base")
    parser.add_argument("--depth", type=int, help="number of its first layers to use (default: all)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="the ways to run (default: all)")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    args = parser.parse_args()
    if not torch.cuda.is_available() and args.ways != ["cpu"]:
        raise SystemExit("torch finds no GPU here, and without one there is nothing to check.")
    ways = args.ways or [name for name in WAYS if not WAYS[name][1] or has_cupy_gpu]
    if not has_cupy_gpu:
        print("NOT RUN: all of spaCy on the GPU, because CuPy is not installed.")
    results: dict[str, dict[str, Any]] = {}
    wrong = []
    for name in tqdm(ways, unit=" ways"):
        try:
            results[name] = run_way(args.base, args.depth, *WAYS[name])
        except Exception:
            traceback.print_exc()
            wrong.append(f"{name}: failed")
    plain = results.get("cpu")
    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args.base}, depth {args.depth}")
    print("| way | vectors | losses | same answers | kept | slots | intents | predicted, words/s | trained | MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, found in results.items():
        vectors = losses = same = float("nan")
        if plain is not None and plain["vectors"].shape == found["vectors"].shape:
            vectors = float(np.abs(found["vectors"] - plain["vectors"]).max() / np.abs(plain["vectors"]).max())
            losses = max(abs(a - b) / max(a, 1.0) for a, b in zip(plain["losses"], found["losses"], strict=True))
            pairs = zip(plain["answers"], found["answers"], strict=True)
            same = sum(one == other for one, other in pairs) / len(plain["answers"])
        compared = plain is not None and not any(word in name for word in OTHERWISE)
        # Written so that NaN is wrong, too.
        if compared and not (vectors <= VECTORS and losses <= LOSSES):
            wrong.append(f"{name}: vectors differ by {vectors:.1e}, losses by {losses:.1e}")
        if not (found["losses"][-1] <= 0.9 * found["losses"][0] and found["kept"] >= 0.95):
            wrong.append(f"{name}: losses {found['losses'][0]:.2f} to {found['losses'][-1]:.2f}, kept {found['kept']}")
        numbers = {
            "vectors": vectors, "losses_differ": losses, "same": same, "first_loss": found["losses"][0],
            "last_loss": found["losses"][-1],
        }  # fmt: skip
        found["numbers"] = numbers | {k: v for k, v in found.items() if isinstance(v, float)}
        print(
            f"| {name} | {vectors:.1e} | {losses:.1e} | {same:.1%} | {found['kept']:.1%} | {100 * found['slots']:.1f} "
            f"| {100 * found['intents']:.1f} | {found['predicted']:,.0f} | {found['trained']:,.0f} "
            f"| {found.get('memory', 0):,.0f} |"
        )
    if args.output:
        numbers = {name: found["numbers"] for name, found in results.items()}
        args.output.write_text(json.dumps({"base": args.base, "depth": args.depth, "ways": numbers}, indent=1))
    for words in wrong:
        print(f"WRONG: {words}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
