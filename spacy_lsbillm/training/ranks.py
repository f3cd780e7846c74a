"""The processes of one training: each computes its share of every batch, and all have the same weights.

They communicate through torch.distributed: NCCL between GPUs, gloo between CPUs. torchrun starts them.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Model, PyTorchShim, xp2torch
from torch import Tensor

from ..errors import SettingError
from ..layers import BackboneShim
from ..pipeline.billm_transformer import BiLLMTransformer
from .state import trained_models

T = TypeVar("T")
# Where spaCy's parser and `ner` store the classes that no gold annotation has shown so far, which they never predict.
UNSEEN = "unseen_classes"
# How long the other processes wait for one that evaluates or saves. One that has ended is noticed immediately.
PATIENCE = datetime.timedelta(hours=1)


class RankLost(BaseException):
    """Another process of the training has ended, and so does this one. The other one has reported the reason."""


class Ranks:
    """This process among those of a training. This class is for a single process, which has nothing to share.

    rank (int): The number of this process, from 0.
    size (int): The number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def agreed(self, decide: Callable[[], T]) -> T:
        """Let the first process decide for all. If it fails, it raises its error; the others raise `RankLost`."""
        return decide()

    def share(self, items: Sequence[T]) -> list[T]:
        """The items of a batch that this process works on."""
        return list(items)

    def add_gradients(self, nlp: Language, exclude: Sequence[str]) -> None:
        """Replace the gradients in all processes by their sum."""

    def on_any_rank(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def of_first(self, value: T) -> T:
        """The value that the first process has, in all processes."""
        return value

    def gather(self, value: T) -> list[T]:
        """The values in all processes, by rank."""
        return [value]

    def evaluate(self, nlp: Language, evaluate: Callable[[], T]) -> T:
        """Call a function that evaluates the pipeline."""
        return evaluate()


class DistributedRanks(Ranks):
    """The processes that torchrun has started; see `joined`."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._all_seen = False
        self._begun = False

    def agreed(self, decide: Callable[[], T]) -> T:
        answer: T | None = None
        failure: Exception | None = None
        if self.first:
            try:
                answer = decide()
            except Exception as error:
                failure = error
        answer, failed = self.of_first((answer, failure is not None))
        if failure is not None:
            raise failure
        if failed:
            raise RankLost("the first process has failed")
        return answer  # type: ignore[return-value]

    def share(self, items: Sequence[T]) -> list[T]:
        """This process' share of a batch. It may be empty, for example of the last batch of an epoch.

        RAISES (SettingError): The first batch is already too small.
        """
        too_small, self._begun = not self._begun and len(items) < self.size, True
        if too_small:
            if not self.first:
                raise RankLost("the first process says why")
            raise SettingError(
                f"a batch has {len(items)} documents, too few for {self.size} processes: make training.batcher.size "
                f"larger, training.accumulate_gradient smaller, or start fewer processes."
            )
        return list(items[self.rank :: self.size])

    def add_gradients(self, nlp: Language, exclude: Sequence[str]) -> None:
        """Replace the gradients in all processes by their sum.

        A weight without a gradient in a process counts as zero.
        """
        for _, pipe in nlp.pipeline:
            if isinstance(pipe, BiLLMTransformer):
                pipe.settle()
        self._share_unseen(nlp, exclude)
        weights = [weight for model in trained_models(nlp, exclude).values() for weight in _weights(model)]
        gradients = [weight.gradient() for weight in weights]
        device = next((gradient.device for gradient in gradients if gradient is not None), torch.device("cpu"))
        there = torch.tensor([gradient is not None for gradient in gradients], dtype=torch.uint8, device=device)
        with _peers():
            dist.all_reduce(there, op=dist.ReduceOp.MAX)
        chosen = [
            (weight, weight.zeros() if gradient is None else gradient)
            for weight, gradient, flag in zip(weights, gradients, there.tolist(), strict=True)
            if flag
        ]
        if not chosen:
            return
        row = torch.cat([gradient.reshape(-1).to(device, torch.float32) for _, gradient in chosen])
        with _peers():
            dist.all_reduce(row)
        parts = row.split([gradient.numel() for _, gradient in chosen])
        for (weight, gradient), part in zip(chosen, parts, strict=True):
            weight.set_gradient(part.view_as(gradient).to(gradient))

    def _share_unseen(self, nlp: Language, exclude: Sequence[str]) -> None:
        """Mark the classes that any process has seen as seen in all."""
        models = trained_models(nlp, exclude).values()
        sets = [node.attrs[UNSEEN] for model in models for node in model.walk() if UNSEEN in node.attrs]
        if not sets or self._all_seen:
            return
        others = self.gather([sorted(one) for one in sets])
        for number, one in enumerate(sets):
            one.intersection_update(*(other[number] for other in others))
        # The same in all processes, so that none waits for the others in vain.
        self._all_seen = not any(sets)

    def on_any_rank(self, flag: bool) -> bool:
        any_flag = torch.tensor([flag], dtype=torch.uint8)
        with _peers():
            dist.all_reduce(any_flag, op=dist.ReduceOp.MAX)
        return bool(any_flag.item())

    def of_first(self, value: T) -> T:
        box = [value]
        with _peers():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        with _peers():
            dist.all_gather_object(values, value)
        return values

    def evaluate(self, nlp: Language, evaluate: Callable[[], T]) -> T:
        """Each process predicts its share of the documents, and the first one scores all of them."""
        original = nlp.evaluate

        def divided(examples: Any, **settings: Any) -> dict[str, Any]:
            every = list(examples)
            scorer = settings.pop("scorer", None)
            if scorer is None:
                scorer = Scorer(**{"nlp": nlp, **(settings.pop("scorer_cfg", None) or {})})
            scorer_of_all: Any = _OfAll(self, nlp, every, scorer)
            scores = original(every[self.rank :: self.size], scorer=scorer_of_all, **settings)
            speeds = self.gather(scores["speed"])
            return self.of_first(scores) | {"speed": sum(speeds)}

        nlp.evaluate = divided  # type: ignore[method-assign]
        try:
            return evaluate()
        finally:
            del nlp.evaluate


class _OfAll:
    """A scorer that also scores the documents that other processes predicted."""

    def __init__(self, ranks: DistributedRanks, nlp: Language, examples: list[Example], scorer: Any):
        self._ranks, self._nlp, self._examples, self._scorer = ranks, nlp, examples, scorer

    def score(self, share: Sequence[Example], **settings: Any) -> dict[str, Any]:
        annotated = self._ranks.gather([_without_vectors(example.predicted).to_bytes() for example in share])
        if not self._ranks.first:
            return {}
        every = []
        for number, example in enumerate(self._examples):
            content = annotated[number % self._ranks.size][number // self._ranks.size]
            every.append(Example(Doc(self._nlp.vocab).from_bytes(content), example.reference))
        return self._scorer.score(every, **settings)


def _without_vectors(doc: Doc) -> Doc:
    """Remove the transformer's data from a document: they are large, and scorers do not use them."""
    doc.user_data.pop(("._.", "trf_data", None, None), None)  # type: ignore[call-overload]
    return doc


class _Weight:
    """One array of weights, of thinc or of torch, and its gradient."""

    def __init__(self, get: Callable[[], Tensor | None], put: Callable[[Tensor], None], zeros: Callable[[], Tensor]):
        self.gradient, self.set_gradient, self.zeros = get, put, zeros


def _weights(model: Model) -> Iterator[_Weight]:
    for node in model.walk():
        for name in node.param_names:
            if node.has_param(name):
                yield _of_thinc(node, name)
        for shim in node.shims:
            if isinstance(shim, BackboneShim):
                parameters = shim.backbone.trainable()
            elif isinstance(shim, PyTorchShim):
                parameters = dict(shim._model.named_parameters())
            else:
                raise SettingError(
                    f"the layer {node.name!r} is a {type(shim).__name__}, whose gradients cannot be added up between "
                    f"processes. Train it in one process."
                )
            for parameter in parameters.values():
                if parameter.requires_grad:
                    yield _of_torch(parameter)


def _of_thinc(node: Model, name: str) -> _Weight:
    return _Weight(
        lambda: xp2torch(node.get_grad(name)) if node.has_grad(name) else None,
        lambda value: node.set_grad(name, node.ops.asarray(value.numpy() if value.device.type == "cpu" else value)),
        lambda: torch.zeros_like(xp2torch(node.get_param(name))),
    )


def _of_torch(parameter: torch.nn.Parameter) -> _Weight:
    def put(value: Tensor) -> None:
        parameter.grad = value

    return _Weight(lambda: parameter.grad, put, lambda: torch.zeros_like(parameter))


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Convert errors of the communication inside the context.

    RAISES (RankLost): The other processes cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        raise RankLost(str(error)) from error


def started_by_torchrun() -> bool:
    """Whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


@contextlib.contextmanager
def joined(use_gpu: int) -> Iterator[Ranks]:
    """Connect to the other processes, and disconnect at the end.

    use_gpu (int): The number of this process' own GPU, -1 for the CPU.
    RAISES (SettingError): The others cannot be reached, or the GPU or NCCL is missing.
    """
    if not started_by_torchrun():
        yield Ranks()
        return
    if use_gpu >= 0:
        if not dist.is_nccl_available() or use_gpu >= torch.cuda.device_count():
            raise SettingError(
                f"this process should use GPU {use_gpu}, but torch sees {torch.cuda.device_count()} GPUs here, with "
                f"NCCL: {dist.is_nccl_available()}. Start one process per GPU on each machine."
            )
        torch.cuda.set_device(use_gpu)
    elif torch.cuda.is_available():
        # For a base with device = "cuda": otherwise all processes would use the first GPU.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_gpu >= 0 else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise SettingError(
            f"process {os.environ.get('RANK')} of {os.environ['WORLD_SIZE']} cannot reach the others ({error}): check "
            f"that torchrun started all of them with the same rendezvous."
        ) from error
    try:
        yield DistributedRanks()
    finally:
        dist.destroy_process_group()
