"""What large bases need in memory, time and disk space: training, prediction, loading, many pipelines per base, saving.

    python -m benchmarks.memory --shape 100m
    python -m benchmarks.memory --shape 8b --gpu-id 0
    python -m benchmarks.memory --base FOLDER --only load

The weights of a shape are random, so nothing is downloaded. Each measurement runs in a process of its own. Memory is
that of the GPU, or without one the resident memory of the process. Weights are bfloat16 on a GPU, float32 on a CPU.
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import spacy
import torch
from spacy.language import Language
from spacy.training import Example
from thinc.api import Adam, require_gpu
from transformers import AutoModelForCausalLM, LlamaConfig

import spacy_lsbillm
from spacy_lsbillm.backbone.skeleton import skeleton
from spacy_lsbillm.backbone.tensor_files import NewTensor, write_tensors

from .record import ROOT, circumstances, write_result

# Shapes of LLaMA models by number of parameters. The largest is that of LLaMA-3-8B (arXiv 2407.21783, table 3).
SHAPES: dict[str, dict[str, Any]] = {
    "10m": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 4},
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32},
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "rope_theta": 500000.0,
    },
}
VOCABULARY = {"10m": 8192, "100m": 16384, "1b": 32000}
WORDS = ["book", "a", "table", "for", "two", "at", "an", "italian", "place", "in", "boston", "tomorrow", "night"]
MEBIBYTE = 2**20
PIPELINES = 10


def make_base(folder: Path, shape: str) -> None:
    """Write a base with random weights in bfloat16, one part at a time, with the embedded base's tokenizer."""
    config = LlamaConfig(**{"vocab_size": VOCABULARY.get(shape), **SHAPES[shape], "tie_word_embeddings": False})
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    tensors = {
        name: NewTensor("BF16", tuple(tensor.shape), _random(name, tensor.numel()))
        for name, tensor in skeleton(config).state_dict().items()
    }
    write_tensors(folder, tensors)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ROOT / "assets" / "base" / name, folder / name)


def _random(name: str, size: int) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, 1 << 22):
            values = torch.ones if name.endswith("norm.weight") else torch.randn
            scale = 1.0 if name.endswith("norm.weight") else 0.02
            part = values(min(1 << 22, size - start), dtype=torch.float32) * scale
            yield part.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()

    return chunks


def pipeline(base: Path, **model: Any) -> Language:
    """A blank pipeline with a labeler over a base."""
    nlp = spacy.blank("en")
    settings = {"@architectures": "spacy-lsbillm.BiLLMModel.v1", "name": str(base), **model}
    nlp.add_pipe("billm_transformer", name="transformer", config={"model": settings})
    nlp.add_pipe("sequence_labeler", config={"model": {"tok2vec": {"@architectures": LISTENER, "pooling": POOLING}}})
    return nlp


LISTENER = "spacy-transformers.TransformerListener.v1"
POOLING = {"@layers": "reduce_mean.v1"}


def examples(nlp: Language, tokens: int) -> list[Example]:
    """Documents for one step, with about `tokens` tokens."""
    docs = [nlp.make_doc(" ".join(WORDS * 10)) for _ in range(max(1, tokens // (10 * len(WORDS))))]
    return [Example.from_dict(doc, {"entities": [(17, 20, "count")]}) for doc in docs]


def initialized(base: Path, **model: Any) -> Language:
    """An initialised pipeline over a base."""
    nlp = pipeline(base, **model)
    nlp.initialize(lambda: examples(nlp, 130))
    return nlp


class Memory:
    """The peak of memory since the last `reset`, and what is in use now, in bytes."""

    def __init__(self, gpu: bool):
        self._gpu = gpu

    def reset(self) -> None:
        gc.collect()
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            # Resets VmHWM (proc(5)).
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self._gpu else self._status("VmHWM")

    def held(self) -> int:
        gc.collect()
        return torch.cuda.memory_allocated() if self._gpu else self._status("VmRSS")

    @staticmethod
    def _status(field: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def train(
    base: Path, work: Path, memory: Memory, dtype: str, quantization: str | None, tokens: int
) -> dict[str, float]:
    """Measure training and prediction.

    Training steps have about `tokens` tokens, LoRA with r = 16 on all linear layers, and gradient checkpointing.
    """
    before = memory.held()
    memory.reset()
    nlp = initialized(base, dtype=dtype, quantization=quantization, gradient_checkpointing=True, window=512)
    batch = examples(nlp, tokens)
    optimizer = Adam(1e-4, use_averages=False)
    nlp.update(batch, sgd=optimizer)
    n_tokens = sum(len(example.reference) for example in batch)
    begun = time.monotonic()
    steps = 3
    for _ in range(steps):
        nlp.update(batch, sgd=optimizer)
    seconds = time.monotonic() - begun
    trained_peak = memory.peak() - before
    del optimizer
    memory.reset()
    begun = time.monotonic()
    for _ in nlp.pipe([example.reference.text for example in batch]):
        pass
    predict_seconds = time.monotonic() - begun
    spacy_lsbillm.save(nlp, work / f"trained-{quantization}")
    size = sum(path.stat().st_size for path in (work / f"trained-{quantization}").rglob("*") if path.is_file())
    base_size = _size(base)
    return {
        "peak in training, GiB": trained_peak / 2**30,
        "peak in prediction, GiB": (memory.peak() - before) / 2**30,
        "tokens per second in training": steps * n_tokens / seconds,
        "tokens per second in prediction": n_tokens / predict_seconds,
        "package, share of the base": size / base_size,
    }


def load(base: Path, work: Path, memory: Memory) -> dict[str, float]:
    """Measure `spacy.load` of a package that stores its base as a reference.

    It is compared with `from_pretrained` of the base and with reading its files once, in turn: with the base's files in
    the page cache, and with its files on the disk only, each method first as often as last. The peak of memory is what
    `spacy.load` takes in a process that has loaded the package before.
    """
    initialized(base, dtype="auto").to_disk(work / "reference")
    gc.collect()
    loaders: dict[str, Callable[[], Any]] = {
        "spacy.load": lambda: spacy.load(work / "reference"),
        "from_pretrained": lambda: AutoModelForCausalLM.from_pretrained(base, torch_dtype="auto"),
        "reading once": lambda: _read(base),
    }
    both = list(loaders)
    # The first call of each includes imports.
    for name in both:
        _seconds(loaders[name])
    cached: dict[str, list[float]] = {name: [] for name in both}
    read: dict[str, list[float]] = {name: [] for name in both}
    for name in both * 3:
        cached[name].append(_seconds(loaders[name]))
    for name in both + both[::-1]:
        _forget(base)
        read[name].append(_seconds(loaders[name]))
    figures = {}
    for where, times in (("", cached), (" from the disk", read)):
        found = {name: sum(values) / len(values) for name, values in times.items()}
        figures |= {f"{name}{where}, seconds": value for name, value in found.items()}
        for name, values in times.items():
            figures |= {f"{name}{where}, turn {turn}, seconds": value for turn, value in enumerate(values, 1)}
        for other in ("from_pretrained", "reading once"):
            figures[f"spacy.load by {other}{where}"] = found["spacy.load"] / found[other]
    _forget(base)
    before = memory.held()
    memory.reset()
    _seconds(loaders["spacy.load"])
    figures["peak of spacy.load, share of the base"] = (memory.peak() - before) / _size(base)
    return figures


def _read(folder: Path) -> None:
    """Read every byte of a base's weights, and keep none."""
    buffer = bytearray(1 << 24)
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _size(base: Path) -> int:
    return sum(path.stat().st_size for path in base.glob("*.safetensors"))


def _seconds(loader: Callable[[], Any]) -> float:
    """The time until every weight is in memory."""
    begun = time.monotonic()
    held = loader()
    # Pages that are only mapped are read when they are used.
    for parameter in _parameters(held):
        parameter.flatten()[::1024].sum()
    seconds = time.monotonic() - begun
    del held
    gc.collect()
    return seconds


def _forget(folder: Path) -> None:
    """Make the system drop a base's weights from its page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _parameters(held: Any) -> list[Any]:
    if held is None:
        return []
    model = held.get_pipe("transformer").model.shims[0].backbone.model if isinstance(held, Language) else held
    return [parameter.detach() for parameter in model.parameters()]


def share(base: Path, work: Path, memory: Memory) -> dict[str, float]:
    """Measure pipelines with adapters of r = 8 over one base, loaded and used one after the other."""
    initialized(base, dtype="bfloat16", lora={"r": 8}).to_disk(work / "small")
    gc.collect()
    held: list[Language] = []
    after = [memory.held()]
    for _ in range(PIPELINES):
        held.append(spacy.load(work / "small"))
        list(held[-1].pipe([" ".join(WORDS)] * 4))
        after.append(memory.held())
    size = _size(base)
    further = [(b - a) / size for a, b in pairwise(after[1:])]
    return {
        "first pipeline, share of the base": (after[1] - after[0]) / size,
        "a further one, mean share": sum(further) / len(further),
        "a further one, largest share": max(further),
    }


def save(base: Path, work: Path, memory: Memory, store_base: str) -> dict[str, float]:
    """Measure how much resident memory grows while a pipeline is saved with its base, in units of the 16-bit base."""
    nlp = initialized(base, dtype="bfloat16", store_base=store_base)
    list(nlp.pipe([" ".join(WORDS)] * 4))
    size = _size(base)
    resident = Memory(gpu=False)
    resident.reset()
    before = resident.held()
    begun = time.monotonic()
    nlp.to_disk(work / store_base)
    return {
        "growth, share of the base": (resident.peak() - before) / size,
        "seconds": time.monotonic() - begun,
    }


def measure(what: str, base: Path, work: Path, gpu_id: int, tokens: int) -> dict[str, float]:
    """Make one measurement, in this process."""
    if gpu_id >= 0:
        require_gpu(gpu_id)
    memory = Memory(gpu=gpu_id >= 0)
    name, _, detail = what.partition(" ")
    if name == "train":
        dtype = "bfloat16" if gpu_id >= 0 else "float32"
        return train(base, work, memory, dtype, None if detail == "plain" else detail, tokens)
    if name == "save":
        return save(base, work, memory, detail)
    return {"load": load, "share": share}[name](base, work, memory)


MEASUREMENTS = ("train plain", "train nf4", "load", "share", "save copy", "save merged")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="100m", help="shape of the base (default %(default)s)")
    parser.add_argument("--base", type=Path, help="the folder of a base, instead of a shape")
    parser.add_argument("--gpu-id", type=int, default=-1)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per training step (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=MEASUREMENTS, metavar="WHAT")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        what, base, work = args.one
        print(json.dumps(measure(what, Path(base), Path(work), args.gpu_id, args.tokens)))
        return
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.base is None:
            base = Path(folder) / "base"
            base.mkdir()
            make_base(base, args.shape)
            print(f"a base of LLaMA's shape, {_size(base) / 2 / 1e6:,.0f} million random parameters, ", end="")
        else:
            base = args.base.resolve()
            print(f"the base {base.name}, ", end="")
        print(f"{_size(base) / MEBIBYTE:,.0f} MiB\n")
        for what in args.only:
            found[what] = _in_process(what, base, Path(folder), args)
            print("\n".join(f"| {what} | {name} | {value:,.3f} |" for name, value in found[what].items()), flush=True)
    if args.output is not None:
        device = torch.cuda.get_device_name(args.gpu_id) if args.gpu_id >= 0 else "cpu"
        made = {"base": args.base.name} if args.base else {"shape": args.shape}
        write_result(args.output, {**made, "device": device, "figures": found, **circumstances()})


def _in_process(what: str, base: Path, work: Path, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--gpu-id", str(args.gpu_id), "--tokens", str(args.tokens)]
    done = subprocess.run(
        [*command, "--one", what, str(base), str(work)],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the measurement {what!r} failed, see above.")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
