"""A language model that writes its annotation as JSON, prompted or tuned to do so.

This is what the tuned pipelines are compared with, as in the papers. It is not part of the product.
"""

import copy
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from spacy import blank
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from spacy_lsbillm.architectures import DEFAULT_LORA
from spacy_lsbillm.pipeline.class_scorers import make_textcat_scorer

from .answers import CHOSEN, Task, labels_in
from .models import PROMPTED, SCORE, Budget, Compared

# The number of texts whose answers are generated at once, by the type of device; 16 on others.
BATCHES = {"cuda": 64}
# The number of development documents by which an epoch is chosen; generating answers is slow.
CHOSEN_ON = 100
# The prompt of a tuned model, which has learned the instruction.
SHORT = "Text: {text}\nJSON: "


class Writer:
    """A model with its tokenizer and its task.

    model (Compared): Whether the model is prompted, and with how many examples, or tuned.
    docs (Sequence[Doc]): The annotated training set.
    device (str | None): The device of the model; None for the CPU.
    """

    def __init__(self, model: Compared, task: Task, docs: Sequence[Doc], seed: int, device: str | None) -> None:
        self.task, self.tuned = task, model.answer != PROMPTED
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model.base)
        self.model: Any = AutoModelForCausalLM.from_pretrained(model.base).to(device or "cpu").eval()
        # Answers follow the prompts, so all prompts of a batch must end at the same position.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.shots = random.Random(seed).sample(list(docs), model.shots)
        # Answers are cut at the length of the longest in the training set; one that repeats itself would never end.
        self.room = max(len(self.tokenizer(task.answer(doc)).input_ids) for doc in docs) + 1

    def prompt(self, text: str) -> str:
        """The text before the answer."""
        if self.tuned:
            return SHORT.format(text=text)
        messages = []
        for i, (asked, answer) in enumerate([*((d.text, self.task.answer(d)) for d in self.shots), (text, None)]):
            words = f"Text: {asked}" if i else f"{self.task.instruction()}\n\nText: {asked}"
            messages.append({"role": "user", "content": words})
            if answer is not None:
                messages.append({"role": "assistant", "content": answer})
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def answers(self, texts: Sequence[str]) -> list[str]:
        """Generate the answers greedily, so that each text has exactly one."""
        self.model.eval()
        # Texts of similar length together, so that there is little padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = [""] * len(texts)
        size = BATCHES.get(self.model.device.type, 16)
        for begin in tqdm(range(0, len(order), size), unit=" batches", desc="answers", leave=False):
            some = order[begin : begin + size]
            # The chat template has its own start token.
            batch = self.tokenizer(
                [self.prompt(texts[i]) for i in some], return_tensors="pt", padding=True, add_special_tokens=self.tuned
            ).to(self.model.device)
            with torch.inference_mode():
                written = self.model.generate(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    max_new_tokens=self.room,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=self.tokenizer.pad_token_id,
                )
            answers = self.tokenizer.batch_decode(written[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
            for i, answer in zip(some, answers, strict=True):
                found[i] = answer
        return found

    def score(self, docs: Sequence[Doc]) -> tuple[dict[str, Any], int]:
        """Score the answers for annotated documents.

        RETURNS (tuple): The scores by spaCy's names, and how many answers could not be read.
        """
        examples, unread = [], 0
        for doc, answer in zip(docs, self.answers([doc.text for doc in docs]), strict=True):
            predicted = Doc(doc.vocab, [token.text for token in doc], [bool(token.whitespace_) for token in doc])
            unread += not self.task.annotate(predicted, answer)
            examples.append(Example(predicted, doc))
        if self.task.kind == "sequence":
            return get_ner_prf(examples), unread
        if self.task.kind == "single":
            # If all classes have the same score, spaCy's scorer counts one of them as chosen: wrong here. For
            # classifiers, which always choose one class, this accuracy is the micro F1.
            pairs = [(pair.predicted, pair.reference) for pair in examples]
            right = [CHOSEN in mine.cats.values() and _class(mine) == _class(gold) for mine, gold in pairs]
            return {SCORE["single"]: sum(right) / len(right)}, unread
        return make_textcat_scorer(multi_label=True)(examples, labels=self.task.labels, threshold=0.5), unread


def _class(doc: Doc) -> str:
    return max(doc.cats, key=lambda label: doc.cats[label])


def run_written(
    model: Compared,
    kind: str,
    paths: dict[str, Path],
    budget: Budget,
    seed: int,
    folder: Path,
    device: str | None = None,
) -> dict[str, Any]:
    """Prompt or tune a model and score it on the test set.

    A tuned model has the adapter of its best epoch on dev. Nothing is chosen for a prompted one.

    folder (Path): A folder for the training.
    device (str | None): The device of the model; None for the CPU.
    RETURNS (dict): The part of the result that depends on the model, see `cell.run_cell`.
    """
    vocab = blank("en").vocab
    docs = {split: list(DocBin().from_disk(path).get_docs(vocab)) for split, path in paths.items()}
    set_seed(seed)
    task = Task(kind, labels_in(docs["train"], kind))
    writer = Writer(model, task, docs["train"], seed, device)
    metric, few = SCORE[kind], docs["dev"][:CHOSEN_ON]
    begun = time.monotonic()
    chosen: dict[str, Any] = {"dev_by_step": []}
    if writer.tuned:
        curve = _tune(writer, model, docs["train"], budget, seed, folder, lambda: writer.score(few)[0][metric] or 0.0)
        chosen = {"dev": max(score for _, score in curve), "dev_by_step": curve, "dev_documents": len(few)}
    seconds = time.monotonic() - begun
    begun = time.monotonic()
    scores, unread = writer.score(docs["test"])
    return {
        **chosen,
        "train_seconds": round(seconds, 1),
        "test": scores[metric] or 0.0,
        "test_scores": {key: scores[key] for key in ("ents_p", "ents_r", "cats_macro_f") if key in scores},
        "test_seconds": round(time.monotonic() - begun, 2),
        "test_words": sum(map(len, docs["test"])),
        "test_unread": unread,
        "prompt": writer.prompt(docs["test"][0].text),
        "longest_answer": writer.room,
    }


def _tune(
    writer: Writer,
    model: Compared,
    docs: Sequence[Doc],
    budget: Budget,
    seed: int,
    folder: Path,
    score: Callable[[], float],
) -> list[tuple[int, float]]:
    """Tune the writer, and leave it with the adapter of its best epoch.

    RETURNS (list[tuple[int, float]]): The step and the score on dev after each epoch.
    """
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=DEFAULT_LORA["r"],
        lora_alpha=DEFAULT_LORA["alpha"],
        lora_dropout=0.0,
        target_modules=DEFAULT_LORA["target_modules"],
    )
    writer.model = get_peft_model(writer.model, lora)
    batch = budget.batch_of(len(docs))
    steps = -(-len(docs) // batch) * budget.epochs
    best: dict[str, Any] = {}
    curve: list[tuple[int, float]] = []

    class Choose(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found = score()
            if not curve or found > max(before for _, before in curve):
                best["adapter"] = copy.deepcopy(get_peft_model_state_dict(writer.model))
            curve.append((state.global_step, found))
            writer.model.train()

    options: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "logging_strategy": "no"}
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=batch,
        num_train_epochs=budget.epochs,
        learning_rate=model.tuned.rate * model.tuned.scale,
        warmup_steps=max(1, int(steps * model.tuned.warmup)),
        weight_decay=0.01,
        seed=seed,
        use_cpu=writer.model.device.type == "cpu",
        dataloader_pin_memory=False,
        **options,
    )
    collator = DataCollatorForSeq2Seq(writer.tokenizer)
    rows: Any = [_row(writer, doc) for doc in docs]
    Trainer(writer.model, arguments, train_dataset=rows, data_collator=collator, callbacks=[Choose()]).train()
    set_peft_model_state_dict(writer.model, best["adapter"])
    return curve


def _row(writer: Writer, doc: Doc) -> dict[str, list[int]]:
    """A prompt and its answer as piece ids; only the answer with its end token is learned."""
    prompt = writer.tokenizer(writer.prompt(doc.text)).input_ids
    answer = writer.tokenizer(writer.task.answer(doc), add_special_tokens=False).input_ids
    answer = [*answer, writer.tokenizer.eos_token_id]
    ids = prompt + answer
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(prompt) + answer}
