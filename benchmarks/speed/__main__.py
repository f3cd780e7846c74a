"""The command that measures speed, see `benchmarks.speed`."""

import argparse
import gc
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from thinc.api import require_gpu

from spacy_lsbillm.layers import backbone_shim

from ..record import ROOT, circumstances, write_result
from . import corpora
from .bases import EMBEDDED, SHAPES, Merged, Precision, make_random, merge
from .document import one_long_document
from .operations import operations
from .pipelines import ours
from .prediction import LIMIT, transformer_alone, whole_pipelines
from .report import document_table, stage_table, table
from .stages import profile
from .training import LORA, spacy_steps, training
from .turns import CLOCKS, Contestant, by_turns, ratios

PARTS = ("prediction", "pipelines", "training", "document", "stages", "operations")
CORPORA = ("snips", "mixed")
DTYPES = ("float32", "bfloat16", "float16")
BESIDE = ("stock", "loop", "trainer")


def main(arguments: list[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    check(args)
    transformers.logging.set_verbosity_error()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.gpu_id >= 0:
        require_gpu(args.gpu_id)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        base = args.base.resolve()
        if args.shape:
            base = make_random(args.shape, work / "base", torch.device("cuda" if args.gpu_id >= 0 else "cpu"))
        result = measure(args, base, work)
    if args.result:
        write_result(args.result, result)


def parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    made.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA), metavar="CORPUS")
    made.add_argument("--words", type=int, default=20_000, help="per corpus; snips may have fewer (%(default)s)")
    made.add_argument("--document-words", type=int, default=1_000_000, help="in the long document (%(default)s)")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--batches", nargs="+", type=int, default=[8, 16], help="texts per step of the Trainer")
    made.add_argument("--base", type=Path, default=EMBEDDED, help="a folder in Hugging Face format")
    made.add_argument("--shape", choices=SHAPES, help="random weights of this shape, instead of a base")
    made.add_argument("--dtype", choices=DTYPES, default="float32")
    made.add_argument("--quantization", choices=["nf4"], help="of the base, and of the model that sets the limit")
    made.add_argument(
        "--beside",
        nargs="*",
        choices=BESIDE,
        default=list(BESIDE),
        metavar="WHAT",
        help="what else is measured, each with its own weights: spacy-transformers (stock), a padded loop (loop), "
        "transformers' Trainer (trainer). With a large base there may be no memory for any of them",
    )
    made.add_argument("--clock", choices=CLOCKS, default="wall", help="use cpu for one thread on a busy machine")
    made.add_argument("--threads", type=int, default=0, help="threads of PyTorch (0: its default)")
    made.add_argument("--gpu-id", type=int, default=-1)
    made.add_argument("--data", type=Path, help="the folder of data sets, for long texts (default: joined SNIPS)")
    made.add_argument("--result", type=Path, help="file for the result")
    return made


def check(args: argparse.Namespace) -> None:
    """Check the arguments before anything is loaded.

    RAISES (SystemExit): A value is not allowed, or something is missing.
    """
    for name in ("words", "document_words", "rounds"):
        if getattr(args, name) < 1:
            raise SystemExit(f"--{name.replace('_', '-')} {getattr(args, name)} is not allowed: it must be at least 1.")
    if not args.shape and not (args.base / "config.json").is_file():
        raise SystemExit(f"there is no base in {args.base}: give a folder in Hugging Face format with --base.")
    if args.gpu_id >= 0 and not torch.cuda.is_available():
        raise SystemExit(f"--gpu-id {args.gpu_id}: PyTorch finds no GPU here. Leave it out to measure on the CPU.")
    if args.clock == "cpu" and args.gpu_id >= 0:
        raise SystemExit("--clock cpu does not see the time of a GPU. Use --clock wall.")
    if args.quantization and "stock" in args.beside:
        raise SystemExit("--quantization: spacy-transformers does not support it. Use --beside loop trainer.")
    if args.data:
        corpora.running_text(args.data)


def measure(args: argparse.Namespace, base: Path, work: Path) -> dict[str, Any]:
    """Measure the parts and print their tables."""
    precision = Precision(args.dtype, args.quantization)
    # Quantised weights cannot be merged.
    plain = ours(base, [], Precision(args.dtype))
    merged = merge(backbone_shim(plain.get_pipe("transformer").model).backbone, work / "merged")
    nlp = ours(base, [], precision) if args.quantization else plain
    del plain
    weights = None
    if args.gpu_id >= 0:
        gc.collect()
        weights = torch.cuda.memory_allocated(args.gpu_id)
        print(f"weights on the GPU: {weights / 1e9:.2f} GB\n", flush=True)
    result: dict[str, Any] = {
        **circumstances(),
        "cpu": cpu_name(),
        "pinned_to": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "gpu": torch.cuda.get_device_name(args.gpu_id) if args.gpu_id >= 0 else None,
        "base": {"folder": args.shape or os.path.relpath(base, ROOT), "fingerprint": merged.fingerprint},
        "weights_bytes": weights,
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        "measured": {},
    }
    for name in args.corpora:
        corpus = corpora.snips(args.words) if name == "snips" else corpora.mixed(args.words, args.data)
        for part, contestants in _contests(args, nlp, base, merged, corpus, precision):
            working: dict[str, int] = {}
            seconds = by_turns(contestants, args.rounds, args.clock, working)
            rows = {
                one: {
                    "words_per_second": corpus.words / statistics.median(taken),
                    "of_limit": ratios(taken, seconds[LIMIT]),
                    "seconds": taken,
                    **({"working_bytes": working[one]} if working else {}),
                }
                for one, taken in seconds.items()
            }
            about = {"title": f"{part}, {corpus.source}", "words": corpus.words, "documents": len(corpus.texts)}
            result["measured"][f"{part} {name}"] = {"corpus": about, "rows": rows}
            print(table(about, rows), flush=True)
            if args.result:
                # Keep this result even if the next part fails.
                write_result(args.result, result)
        if "stages" in args.parts:
            whole = ours(base, ["sequence_labeler", "textcat"], precision, pooling="mean")
            found = profile(whole, corpus, args.clock)
            result["measured"][f"stages {name}"] = found
            print(stage_table(f"stages, {corpus.source}", found), flush=True)
        if "operations" in args.parts:
            steps = -(-len(corpus.texts) // max(args.batches))
            labeler = ours(base, ["sequence_labeler"], precision)
            found = operations(spacy_steps(labeler, corpus, corpus.words / steps), int(LORA["r"]))
            result["measured"][f"operations {name}"] = found
            print(stage_table(f"operations of training, {corpus.source}", found), flush=True)
    if "document" in args.parts:
        found = one_long_document(nlp, args.document_words, args.data, args.clock)
        result["measured"]["document"] = found
        print(document_table(found), flush=True)
    return result


def _contests(
    args: argparse.Namespace, nlp: Any, base: Path, merged: Merged, corpus: corpora.Corpus, precision: Precision
) -> Any:
    """The comparisons that are measured in turn, one at a time because each holds several models in memory."""
    if "prediction" in args.parts:
        yield "the transformer alone", transformer_alone(nlp, merged, corpus, precision, args.beside)
    if "pipelines" in args.parts:
        yield "whole pipelines", whole_pipelines(base, merged, corpus, precision, args.beside)
    if "training" in args.parts:
        for batch in args.batches:
            contestants: dict[str, Contestant] = training(base, merged, corpus, precision, batch, args.beside)
            yield f"training, {batch} texts per step", contestants


def cpu_name() -> str | None:
    """The name of the processor according to Linux; None elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


if __name__ == "__main__":
    main()
