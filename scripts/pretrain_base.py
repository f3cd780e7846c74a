"""Pre-train the small LLaMA-architecture decoder that ships in assets/base.

    python scripts/pretrain_base.py --text train.txt.xz --valid valid.txt.xz --work build/base --output assets/base

Plain text in (one paragraph a line, a blank line between documents), a Hugging Face folder out. The work folder
holds the tokenizer, the token array and the last checkpoint: the same command, run again, goes on where it stopped.
"""

import argparse
import json
import lzma
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
# Of the run's log: every entry is a list in this order.
COLUMNS = ("step", "tokens", "loss", "held_out_nats_a_token", "held_out_bits_a_byte", "seconds")


@dataclass(frozen=True)
class Schedule:
    """Warm-up, constant, then linear decay to zero: the last part alone depends on the token budget, so a run can be
    shortened or lengthened before the decay begins without changing what came before."""

    steps: int
    warmup: int
    decay: float
    peak: float

    def __call__(self, step: int) -> float:
        decay_steps = max(1, round(self.steps * self.decay))
        warm = min(1.0, (step + 1) / self.warmup)
        cool = min(1.0, (self.steps - step) / decay_steps)
        return self.peak * min(warm, cool)


def read_documents(path: Path) -> Iterator[str]:
    """Documents of a text file, plain or xz-compressed; blank lines separate them."""
    open_text = lzma.open if path.suffix == ".xz" else open
    with open_text(path, "rt", encoding="utf8") as file:
        lines: list[str] = []
        for line in file:
            if line.strip():
                lines.append(line)
            elif lines:
                yield "".join(lines)
                lines = []
        if lines:
            yield "".join(lines)


def mix_case(documents: Iterator[str], every: int) -> Iterator[str]:
    """Lower-case each `every`-th document: user utterances are often lower-cased, encyclopedias never are."""
    for i, document in enumerate(documents):
        yield document.lower() if every and i % every == 0 else document


def train_tokenizer(documents: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer without a start token, as Qwen and GPT-2 have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def write_tokens(documents: Iterator[str], tokenizer: Tokenizer, path: Path) -> None:
    """All documents as one array of uint16 on disk, each followed by the end-of-text token."""
    end = tokenizer.token_to_id(END)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file, tqdm(desc=f"tokenising {path.stem}", unit=" documents") as bar:
        batch: list[str] = []

        def flush() -> None:
            for encoding in tokenizer.encode_batch(batch):
                np.array([*encoding.ids, end], dtype=np.uint16).tofile(file)
            bar.update(len(batch))
            batch.clear()

        for document in documents:
            batch.append(document)
            if len(batch) == 512:
                flush()
        flush()
    partial.rename(path)


def blocks_of(tokens: np.ndarray, length: int, order: np.ndarray) -> torch.Tensor:
    """The blocks numbered in `order`, each with the token after it: shape (len(order), length + 1)."""
    return torch.from_numpy(np.stack([tokens[i * length : i * length + length + 1] for i in order]).astype(np.int64))


def loss_of(model: LlamaForCausalLM, block: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats. The target's logit is a row-wise product and the rest a logsumexp: on a CPU that is
    several times faster than torch's cross_entropy over a large vocabulary."""
    states = model.model(input_ids=block[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
    weight = model.lm_head.weight
    logits = states @ weight.T
    return (torch.logsumexp(logits.float(), -1) - (states * weight[block[:, 1:].flatten()]).sum(-1).float()).mean()


@torch.inference_mode()
def bits_a_byte(model: LlamaForCausalLM, tokens: np.ndarray, length: int, tokenizer: Tokenizer) -> tuple[float, float]:
    """Held-out loss as (nats a token, bits a byte); every block starts without context."""
    model.eval()
    count = (len(tokens) - 1) // length
    nats = 0.0
    for start in range(0, count, 16):
        block = blocks_of(tokens, length, np.arange(start, min(start + 16, count)))
        nats += loss_of(model, block).item() * block[:, 1:].numel()
    model.train()
    size = len(tokenizer.decode(tokens[1 : count * length + 1].tolist(), skip_special_tokens=True).encode("utf8"))
    return nats / (count * length), nats / math.log(2) / size


def save_checkpoint(path: Path, **state) -> None:
    """Written under another name and then renamed, so that a kill leaves the old checkpoint whole."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def prepare(args: argparse.Namespace) -> tuple[Tokenizer, np.ndarray, np.ndarray]:
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "tokenizer.json"
    if not path.exists():
        sample = (d for i, d in enumerate(mix_case(read_documents(args.text), args.lowercase)) if i % 4 == 0)
        train_tokenizer(sample, args.vocab).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    arrays = []
    for name, source, every in (("train", args.text, args.lowercase), ("valid", args.valid, 0)):
        tokens = args.work / f"{name}.tokens"
        if not tokens.exists():
            write_tokens(mix_case(read_documents(source), every), tokenizer, tokens)
        arrays.append(np.memmap(tokens, dtype=np.uint16, mode="r"))
    return tokenizer, arrays[0], arrays[1]


def build_model(args: argparse.Namespace, tokenizer: Tokenizer) -> LlamaForCausalLM:
    end = tokenizer.token_to_id(END)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        max_position_embeddings=args.length,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
    )
    return LlamaForCausalLM(config)


def train(args: argparse.Namespace) -> None:
    tokenizer, tokens, valid = prepare(args)
    torch.manual_seed(args.seed)
    model = build_model(args, tokenizer)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=args.rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = Schedule(args.tokens // (args.batch * args.length), args.warmup, args.decay, args.rate)
    order = np.random.default_rng(args.seed).permutation((len(tokens) - 1) // args.length)
    first, seconds, log = 0, 0.0, []
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds, log = state["step"], state["seconds"], state["log"]
    started = time.monotonic()
    bar = tqdm(total=schedule.steps * args.batch * args.length, initial=first * args.batch * args.length, unit=" tok")
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        picked = order[np.arange(step * args.batch, (step + 1) * args.batch) % len(order)]
        loss = 0.0
        for part in blocks_of(tokens, args.length, picked).split(args.micro):
            partial = loss_of(model, part) * len(part) / args.batch
            partial.backward()
            loss += partial.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        bar.update(args.batch * args.length)
        bar.set_postfix(loss=f"{loss:.3f}")
        done = step + 1
        if done % args.every == 0 or done == schedule.steps:
            held_out = bits_a_byte(model, valid[:65537], args.length, tokenizer)
            elapsed = seconds + time.monotonic() - started
            log.append([done, done * args.batch * args.length, loss, held_out[0], held_out[1], elapsed])
            bar.write(json.dumps(dict(zip(COLUMNS, log[-1], strict=True))))
            save_checkpoint(
                checkpoint,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                step=done,
                seconds=elapsed,
                log=log,
            )
    finish(args, model, tokenizer, valid, log)


def finish(args: argparse.Namespace, model: LlamaForCausalLM, tokenizer: Tokenizer, valid: np.ndarray, log) -> None:
    """Write the Hugging Face folder (bfloat16) and the record of the run; score what was written, not what was held."""
    args.output.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(args.output)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=None, eos_token=END, model_max_length=args.length
    ).save_pretrained(args.output)
    stored = LlamaForCausalLM.from_pretrained(args.output, torch_dtype=torch.float32)
    nats, bits = bits_a_byte(stored, valid, args.length, tokenizer)
    _, random_bits = bits_a_byte(LlamaForCausalLM(stored.config), valid[:65537], args.length, tokenizer)
    record = {
        "held_out": {"nats_a_token": nats, "bits_a_byte": bits, "random_weights_bits_a_byte": random_bits},
        "parameters": sum(p.numel() for p in stored.parameters()),
        "tokens_seen": log[-1][1],
        "seconds": log[-1][-1],
        "seed": args.seed,
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in PLACES},
        "log_columns": COLUMNS,
        "log": log,
    }
    (args.output / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["held_out"]))


PLACES = ("text", "valid", "work", "output")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", type=Path, required=True, help="training text, .txt or .txt.xz")
    add("--valid", type=Path, required=True, help="held-out text")
    add("--work", type=Path, required=True, help="folder for tokenizer, token arrays and checkpoint")
    add("--output", type=Path, required=True, help="folder for the finished model")
    add("--tokens", type=int, default=10_000_000, help="how many tokens to train on (default %(default)s)")
    add("--vocab", type=int, default=8192)
    add("--hidden", type=int, default=192)
    add("--intermediate", type=int, default=512)
    add("--layers", type=int, default=8)
    add("--heads", type=int, default=6)
    add("--length", type=int, default=256, help="tokens a block, and the longest position (default %(default)s)")
    add("--batch", type=int, default=16, help="blocks an optimizer step (default %(default)s)")
    add("--micro", type=int, default=8, help="blocks a forward pass (default %(default)s)")
    add("--rate", type=float, default=3e-3, help="peak learning rate (default %(default)s)")
    add("--warmup", type=int, default=150, help="warm-up steps (default %(default)s)")
    add("--decay", type=float, default=0.4, help="share of the steps in the final linear decay (default %(default)s)")
    add("--lowercase", type=int, default=5, help="lower-case every n-th document, 0 for none (default %(default)s)")
    add("--every", type=int, default=100, help="steps between checkpoints (default %(default)s)")
    add("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
