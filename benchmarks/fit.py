"""How far the estimates of `lsbillm fit` are from what is measured: memory and time of training and prediction.

    python -m benchmarks.fit
    python -m benchmarks.fit --base assets/base models/SmolLM2-135M-Instruct

Each setting has a process of its own, which first trains and predicts with one layer of the embedded base, so that what
the libraries take is not counted. Memory is the resident memory of the process, on a CPU; weights that stay mapped to
their files count as well, once they are used. Time is processor time, with one thread. The pieces of a batch are those
of documents as long as the window, and the documents are words at random.
"""

import argparse
import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam

from spacy_lsbillm.backbone import BackboneSettings, BaseSettings, LoraSettings
from spacy_lsbillm.backbone.base_shape import shape_of
from spacy_lsbillm.backbone.footprint import Work
from spacy_lsbillm.backbone.size import size_of
from spacy_lsbillm.backbone.tokenizer import load_tokenizer
from spacy_lsbillm.layers.billm_model import MOST_ITEMS, backbone_shim, default_window, longest_window
from spacy_lsbillm.training.fit import estimates_of

from .memory import LISTENER, POOLING, Memory
from .record import ROOT, circumstances, portable_name, read_result, write_result

RESULT = ROOT / "benchmarks" / "results" / "fit.json"
EMBEDDED = ROOT / "assets" / "base"
STEPS = 2
TRAINING, PREDICTION, SECOND_COPY = "training", "prediction", "prediction with a second copy"
PACE = "pieces per second"
# Parameters below which a base is measured with more pieces.
SMALL = 50_000_000


@dataclass(frozen=True)
class Setting:
    """What is measured. A batch has as many whole documents, as long as the window, as have `batch_pieces`, or one."""

    base: str
    batch_pieces: int
    dtype: str = "float32"
    quantization: str | None = None
    gradient_checkpointing: bool = False
    depth: int | None = None
    repeat: int = 0
    rank: int = 16

    @property
    def lora(self) -> LoraSettings:
        return LoraSettings(r=self.rank)

    def backbone(self) -> BackboneSettings:
        base = BaseSettings(self.base, dtype=self.dtype, quantization=self.quantization, depth=self.depth)
        return BackboneSettings(base, lora=self.lora, gradient_checkpointing=self.gradient_checkpointing)


def measurements(base: str, small: bool) -> list[tuple[Setting, str]]:
    """Settings of a base, each with what is measured.

    small (bool): Whether the base has a few million parameters.
    """
    pieces = 2048 if small else 512
    plain = Setting(base, pieces)
    bfloat16, nf4 = replace(plain, dtype="bfloat16"), replace(plain, quantization="nf4")
    return [
        (plain, TRAINING),
        (replace(plain, batch_pieces=2 * pieces), TRAINING),
        (replace(plain, gradient_checkpointing=True), TRAINING),
        (replace(plain, depth=4 if small else 15), TRAINING),
        (replace(plain, batch_pieces=pieces // 2, repeat=1), TRAINING),
        (replace(plain, rank=4), TRAINING),
        (bfloat16, TRAINING),
        (nf4, TRAINING),
        (replace(nf4, gradient_checkpointing=True), TRAINING),
        (plain, PREDICTION),
        (plain, SECOND_COPY),
        (bfloat16, PREDICTION),
        (nf4, PREDICTION),
    ]


def pipeline(setting: Setting, window: int, fold: str) -> Language:
    nlp = spacy.blank("en")
    model = {
        "@architectures": "spacy-lsbillm.BiLLMModel.v1",
        "name": setting.base,
        "dtype": setting.dtype,
        "quantization": setting.quantization,
        "gradient_checkpointing": setting.gradient_checkpointing,
        "depth": setting.depth,
        "repeat": setting.repeat,
        "lora": {"r": setting.rank},
        "window": window,
        "overlap": 0,
        "fold_adapter": fold,
    }
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": model, "max_batch_items": MOST_ITEMS["cpu"]})
    nlp.add_pipe("sequence_labeler", config={"model": {"tok2vec": {"@architectures": LISTENER, "pooling": POOLING}}})
    return nlp


def documents(nlp: Language, length: int, pieces: int, words: Sequence[str]) -> list[Doc]:
    """Documents of `length` words, `pieces` words in all, or less than one document fewer."""
    draw = random.Random(0)
    return [Doc(nlp.vocab, draw.choices(words, k=length)) for _ in range(max(1, pieces // length))]


def words_of(base: str) -> list[str]:
    """Words that are one piece each, so that the whole embedding is used."""
    tokenizer = load_tokenizer(Path(base))
    texts = (tokenizer.convert_tokens_to_string([piece]) for piece in tokenizer.get_vocab())
    return sorted({text[1:] for text in texts if text.startswith(" ") and text[1:].isalpha()})


def examples(docs: list[Doc]) -> list[Example]:
    return [Example.from_dict(doc, {"entities": [(0, len(doc[0].text), "LABEL")]}) for doc in docs]


def trim() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def made(setting: Setting, window: int, fold: str = "never") -> tuple[Language, list[Doc]]:
    """A pipeline that is ready for training, and the documents of a batch."""
    words = words_of(setting.base)
    nlp = pipeline(setting, window, fold)
    nlp.initialize(lambda: examples(documents(nlp, 8, 8, words)))
    special = len(backbone_shim(nlp.get_pipe("transformer").model).special)  # type: ignore[attr-defined]
    return nlp, documents(nlp, window - special, setting.batch_pieces, words)


def warm_up(setting: Setting) -> None:
    """Import what is imported late, and have the libraries allocate what they keep."""
    nlp, docs = made(Setting(str(EMBEDDED), 32, setting.dtype, setting.quantization, depth=1), 16)
    nlp.update(examples(docs), sgd=Adam(1e-4))
    list(nlp.pipe(copies(nlp, docs)))


def copies(nlp: Language, docs: list[Doc]) -> list[Doc]:
    """Documents without annotation."""
    return [Doc(nlp.vocab, [token.text for token in doc]) for doc in docs]


def measure(setting: Setting, window: int, what: str) -> dict[str, float]:
    """One measurement, in this process."""
    torch.set_num_threads(1)
    memory = Memory(gpu=False)
    warm_up(setting)
    trim()
    before = memory.held()
    nlp, docs = made(setting, window, "always" if what == SECOND_COPY else "never")
    trim()
    memory.reset()
    optimizer = Adam(1e-4, use_averages=True)

    def step() -> None:
        if what == TRAINING:
            nlp.update(examples(docs), sgd=optimizer)
        else:
            list(nlp.pipe(copies(nlp, docs)))

    step()
    begun = time.process_time()
    for _ in range(STEPS):
        step()
    seconds = time.process_time() - begun
    pieces = sum(map(len, docs))
    return {"bytes": memory.peak() - before, "pieces": pieces, PACE: STEPS * pieces / seconds}


def in_process(setting: Setting, window: int, what: str) -> dict[str, float]:
    """One measurement, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fit", "--one", json.dumps(vars(setting)), str(window), what]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the measurement of {what} with {setting} failed, see above.")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(setting: Setting, what: str, measured: dict[str, float] | None) -> dict[str, Any]:
    """What is estimated for a setting beside what is measured.

    measured (dict | None): From an earlier run; None: it is measured now.
    """
    shape = shape_of(Path(setting.base), setting.base, setting.lora)
    window = default_window(shape.size.longest, shape.size.width)
    if setting.repeat and shape.size.longest is not None:
        window = min(window, longest_window(shape.size.longest, 0, setting.repeat))
    found = measured or in_process(setting, window, what)
    work = Work(int(found["pieces"]), MOST_ITEMS["cpu"], window, setting.repeat)
    (estimate,) = estimates_of(shape, [setting.backbone()], work, torch.device("cpu"), time.process_time)
    footprint = estimate.footprint
    size = footprint.training if what == TRAINING else footprint.prediction
    estimated: dict[str, float] = {"bytes": size + (footprint.second_copy if what == SECOND_COPY else 0)}
    # With a second copy, prediction does not compute the adapter.
    if what in estimate.pieces_per_second:
        estimated[PACE] = estimate.pieces_per_second[what]
    return {
        **vars(setting),
        "base": _name(setting.base),
        "window": window,
        "what": what,
        "measured": found,
        "estimated": estimated,
        "estimated by measured": {name: round(value / found[name], 2) for name, value in estimated.items()},
    }


def show(one: dict[str, Any]) -> None:
    told = [one["base"], one["what"], f"{one['measured']['pieces']} pieces", one["dtype"], one["quantization"] or ""]
    told += [name for name in ("gradient_checkpointing",) if one[name]]
    told += [f"{name} {one[name]}" for name in ("depth", "repeat", "rank") if one[name]]
    mebibytes = [f"{one[kind]['bytes'] / 2**20:,.0f}" for kind in ("estimated", "measured")]
    pace = [f"{one[kind][PACE]:,.0f}" if PACE in one[kind] else "" for kind in ("estimated", "measured")]
    print("| " + " | ".join([" ".join(filter(None, told)), *mebibytes, *pace]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", nargs="+", default=[str(EMBEDDED)], help="folders (default: the embedded base)")
    parser.add_argument("--result", type=Path, default=RESULT, help="what is measured already is not measured again")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        setting, window, what = args.one
        print(json.dumps(measure(Setting(**json.loads(setting)), int(window), what)))
        return
    torch.set_num_threads(1)
    # Measured once; the estimates are those of the code as it is now.
    found = {_key(one): one for one in (read_result(args.result)["measurements"] if args.result.is_file() else [])}
    print("About half a minute for each of 13 measurements of a small base, and a few minutes with 135M parameters")
    for base in args.base:
        for setting, what in measurements(base, size_of(Path(base)).parameters < SMALL):
            key = _key({**vars(setting), "base": _name(base), "what": what})
            found[key] = compare(setting, what, found[key]["measured"] if key in found else None)
            show(found[key])
            write_result(args.result, {"measurements": list(found.values()), **circumstances()})


def _name(base: str) -> str:
    return portable_name(str(Path(base).resolve()).removeprefix(f"{ROOT}{os.sep}"))


def _key(one: dict[str, Any]) -> str:
    """What identifies a measurement."""
    return json.dumps([one[name] for name in (*Setting.__dataclass_fields__, "what")])


if __name__ == "__main__":
    main()
