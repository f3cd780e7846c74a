"""The shim between thinc and the backbone. It trains, averages and saves the adapter alone."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import srsly
import torch
from thinc.api import Optimizer, Shim, xp2torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..alignment import Batch, SpecialPieces, check_white_space, trained_white_space
from ..alignment.white_space import DEFAULT
from ..backbone import (
    ADAPTER_DTYPES,
    INT8,
    STORED_AS,
    Backbone,
    BackboneSettings,
    Folded,
    check_fold,
    load_backbone,
    load_stored,
    may_fold,
    recorded_cutting,
    room_to_fold,
    save_backbone,
    unmasks,
)
from ..backbone.finite import check_states
from ..errors import SettingError, StorageError
from ..files import TemporaryFolder, check_seal, write_seal
from ..values import check_choice, is_flag, is_number, is_whole
from .adapter_optimizer import CHOICES, AdapterOptimizer
from .base_device import MPS, check_device, device_for
from .optimizer_step import name_averages, step_all

# msgpack takes at most 4 GiB an item.
CHUNK_BYTES = 1 << 30
OUTPUTS = TOKENS, PIECES = "tokens", "pieces"
# Under which thinc's optimizer keeps its states.
ADAPTER, MIX = "adapter", "mix"
# Devices for which not every version of torch has `embedding_bag`.
WITHOUT_BAGS = (MPS,)


@dataclass(frozen=True)
class ShimSettings:
    """What a backbone is, and how it is trained and stored.

    backbone (BackboneSettings): See there.
    store_base (str): "reference", "copy" or "merged"; or "int8", of a pipeline that `lsbillm quantize` has written.
    learn_rate_scale (float): The adapter's learning rate in units of the optimizer's, which the heads use as it is.
    heads_first (int): Updates in the beginning that change the heads alone.
    unmask_warmup (int): Updates of the adapter over which unmasked layers come to see their right side; 0: they do from
        the beginning.
    output (str): "tokens" or "pieces": of what there is one vector.
    adapter_optimizer (str | None): Where the adapter's optimizer states are, see `AdapterOptimizer`; None: thinc's.
    store_adapter (str): The adapter's dtype on disk.
    fold_adapter (str): "auto", "always" or "never": whether prediction uses a second copy of the weights, with the
        adapter in them.
    add_bos_token (bool | None): Whether each window begins with the tokenizer's start token; None: as the tokenizer
        does by itself.
    white_space (str | None): What the tokenizer is shown of white space, see `alignment.white_space.show`; None: the
        default, and for a trained backbone what it was trained with.
    device (str | None): "cuda", "mps" or "cpu": where the base computes, wherever spaCy does; None: where that does.
    """

    backbone: BackboneSettings
    store_base: str = "reference"
    learn_rate_scale: float = 1.0
    heads_first: int = 0
    unmask_warmup: int = 0
    output: str = TOKENS
    adapter_optimizer: str | None = None
    store_adapter: str = "float32"
    fold_adapter: str = "auto"
    add_bos_token: bool | None = None
    white_space: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        check_device(self.device)
        check_choice("store_base", self.store_base, STORED_AS)
        if self.store_base == INT8 and self.backbone.base.quantization != INT8:
            raise SettingError(
                f'store_base = "int8" needs quantization = "int8", not {self.backbone.base.quantization!r}: the weights'
                f" were rounded, and what they were before is not stored."
            )
        check_fold(self.fold_adapter, self.backbone.base.quantization)
        if not (is_number(self.learn_rate_scale) and self.learn_rate_scale > 0):
            raise SettingError(
                f"learn_rate_scale = {self.learn_rate_scale!r} is not allowed: it must be a number above 0."
            )
        check_choice("output", self.output, OUTPUTS)
        check_choice("store_adapter", self.store_adapter, ADAPTER_DTYPES)
        check_choice("adapter_optimizer", self.adapter_optimizer, CHOICES)
        if not (is_whole(self.heads_first) and self.heads_first >= 0):
            raise SettingError(
                f"heads_first = {self.heads_first!r} is not allowed: it must be a number of updates, 0 or above."
            )
        if not (is_whole(self.unmask_warmup) and self.unmask_warmup >= 0):
            raise SettingError(
                f"unmask_warmup = {self.unmask_warmup!r} is not allowed: it must be a number of updates, 0 or above."
            )
        if self.unmask_warmup and not unmasks(self.backbone.unmask):
            raise SettingError(
                f"unmask_warmup = {self.unmask_warmup} with unmask = {self.backbone.unmask!r}: there is no layer whose "
                f'mask could be taken off. Use unmask_warmup = 0, or unmask layers, with "all" for example.'
            )
        if self.add_bos_token is not None and not is_flag(self.add_bos_token):
            raise SettingError(f"add_bos_token = {self.add_bos_token!r} is not allowed: use true, false or null.")
        check_white_space(self.white_space)


class BackboneShim(Shim):
    """Holds a backbone for a thinc model; without one until `initialize`, `load` or `from_bytes`.

    white_space (str): What the tokenizer is shown of white space: one of `alignment.white_space.CHOICES`.
    """

    def __init__(self, settings: ShimSettings):
        super().__init__(None)
        self.settings = settings
        self._updates = 0
        # Whether the adapter was trained before: it has got used to what its layers see.
        self._trained = False
        self._optimizer: AdapterOptimizer | None = None
        self._special: SpecialPieces | None = None
        # As recorded by what was loaded, then as in use.
        self.window: int | None = None
        self.overlap: int | None = None
        self.repeat: int | None = None
        self.white_space = settings.white_space or DEFAULT
        self._backbone: Backbone | None = None
        self._folded: Folded | None = None
        self._process = os.getpid()
        # Between the forward pass of an update and its backward pass.
        self._in_update = False
        self._unpacked: TemporaryFolder | None = None

    @property
    def loaded(self) -> bool:
        """Whether there is a backbone."""
        return self._backbone is not None

    @property
    def backbone(self) -> Backbone:
        """RAISES (StorageError): There is none yet."""
        if self._backbone is None:
            raise StorageError("the base model is not loaded yet: call nlp.initialize(), or load a trained pipeline.")
        return self._backbone

    @property
    def special(self) -> SpecialPieces:
        """The special pieces of the base's tokenizer; of a stored pipeline, those that it was trained with."""
        if self._special is None:
            self._special = SpecialPieces.of(self.backbone.tokenizer, self.settings.add_bos_token)
        return self._special

    def _cutting(self) -> dict[str, Any]:
        """How text is cut, for the record."""
        return {
            "window": self.window,
            "overlap": self.overlap,
            "repeat": self.repeat,
            "white_space": self.white_space,
            "add_bos_token": self.settings.add_bos_token,
            "prefix": self.special.prefix.tolist(),
            "suffix": self.special.suffix.tolist(),
        }

    def _cut_as(self, recorded: dict[str, Any] | None) -> None:
        """Cut text as recorded, as far as the settings do not say otherwise."""
        self._special = None
        self.white_space = trained_white_space(self.settings.white_space, (recorded or {}).get("white_space"))
        if recorded is None:
            return
        self.window, self.overlap = recorded["window"], recorded["overlap"]
        # A pipeline of an older version has none.
        self.repeat = recorded.get("repeat", 0)
        if self.settings.add_bos_token in (None, recorded["add_bos_token"]):
            self._special = SpecialPieces.from_lists(recorded["prefix"], recorded["suffix"])

    def __reduce__(self) -> tuple[Any, ...]:
        # Processes that are not forked get their pipelines by pickle.
        return _from_message, (self.settings, self.to_bytes())

    def copy(self) -> "BackboneShim":
        """A shim with its own adapter over the same base weights."""
        copied = BackboneShim(self.settings)
        copied._backbone = self._backbone.twin() if self._backbone is not None else None
        copied._unpacked = self._unpacked
        copied._special, copied.window, copied.overlap = self._special, self.window, self.overlap
        copied.white_space, copied.repeat = self.white_space, self.repeat
        copied._updates, copied._trained = self._updates, self._trained
        return copied

    def initialize(self) -> None:
        """Load the base and put a fresh adapter on it.

        RAISES (SettingError): The settings are those of a pipeline in eight bits.
        """
        if self.settings.store_base == INT8:
            raise SettingError(
                'store_base = "int8" is what `python -m spacy lsbillm quantize` makes of a trained pipeline: nothing '
                'can be trained with it. Use "reference", "copy" or "merged", and quantize the result.'
            )
        self._optimizer = None
        self._updates, self._trained = 0, False
        self.repeat = None
        self.white_space = self.settings.white_space or DEFAULT
        self._backbone = load_backbone(self.settings.backbone, device=device_for(self.settings.device))

    def __call__(self, inputs: Batch, is_train: bool) -> tuple[Tensor, Callable[[Tensor], None]]:
        return self.begin_update(inputs) if is_train else (self.predict(inputs), lambda gradient: None)

    def predict(self, inputs: Batch) -> Tensor:
        """RETURNS (Tensor): Vectors in float32, shape (tokens or pieces, width), on the backbone's device.

        RAISES (SettingError): The backbone is on a GPU, and was loaded by the process that this one was forked from.
        """
        if os.getpid() != self._process:
            self._begin_in_fork()
        backbone = self._predictor()
        backbone.set_training(False)
        backbone.weigh_right(1.0)
        with torch.inference_mode():
            vectors = vectors_of(backbone, inputs, self.settings.output)
            check_states(vectors, backbone)
        return vectors

    def _begin_in_fork(self) -> None:
        """RAISES (SettingError): The backbone is on a GPU."""
        if self.backbone.device.type != "cpu":
            # CUDA cannot be used after a fork: without this there are errors of its own, or none and no end.
            raise SettingError(
                "a pipeline on a GPU cannot be used by several processes: leave n_process = 1, and raise batch_size "
                "instead, which is how many documents the GPU gets at once."
            )
        # The threads of torch's pool do not come along, and waiting for them has no end.
        torch.set_num_threads(1)
        self._process = os.getpid()

    def _predictor(self) -> Backbone:
        """The backbone, or its double with the adapter folded in, made anew whenever the adapter has changed."""
        backbone, folded, setting = self.backbone, self._folded, self.settings.fold_adapter
        # A training that annotates predicts in the middle of each update, and changes the adapter after it.
        if self._in_update or not may_fold(backbone, setting):
            self._folded = None
            return backbone
        if folded is not None and folded.fits(backbone):
            return folded.backbone
        # Its memory is free again before the next one is made.
        self._folded = folded = None
        if not room_to_fold(backbone, setting):
            return backbone
        self._folded = folded = Folded(backbone)
        return folded.backbone

    def begin_update(self, inputs: Batch) -> tuple[Tensor, Callable[[Tensor], None]]:
        """RETURNS (tuple): Vectors, and a callback that takes their gradient through the backbone.

        RAISES (StorageError): The adapter was folded into the base, so that there is nothing to train.
        """
        backbone = self.backbone
        if backbone.stored_as is not None:
            raise StorageError(
                f'this pipeline was saved with store_base = "{backbone.stored_as}" and has no adapter left to train. '
                "Add the component"
                " to frozen_components and annotating_components, or start from the pipeline as it was trained."
            )
        if not backbone.trainable() or self._updates < self.settings.heads_first:
            return self.predict(inputs), lambda gradient: None
        # Training needs the memory, and will change the adapter.
        self._folded = None
        self._in_update = True
        weight = self.right_weight
        backbone.set_training(True)
        backbone.weigh_right(weight)
        vectors = vectors_of(backbone, inputs, self.settings.output)

        def backprop(gradient: Tensor) -> None:
            # With gradient checkpointing layers run again, and must not run as a prediction in between left them.
            backbone.set_training(True)
            backbone.weigh_right(weight)
            if vectors.requires_grad:
                torch.autograd.backward(vectors, gradient.to(vectors.device))
            self._in_update = False

        return vectors.detach(), backprop

    @property
    def right_weight(self) -> float:
        """With what weight unmasked layers see their right side in the next update, from 0 to 1. It rises by as much
        in each update that may change the adapter; one that was trained before begins at 1."""
        if self._trained or not self.settings.unmask_warmup:
            return 1.0
        return min(1.0, max(0, self._updates - self.settings.heads_first) / self.settings.unmask_warmup)

    def finish_update(self, optimizer: Optimizer | Callable[..., Any]) -> None:
        """Let thinc's optimizer change the adapter, and the mix of layers if there is one.

        optimizer (Optimizer | Callable): See `step_all`.
        RAISES (SettingError): The settings ask for an `adapter_optimizer`, and it is a function.
        """
        self._updates += 1
        self._in_update = False
        adapter = self.backbone.adapter_parameters()
        if self.settings.adapter_optimizer is None:
            step_all(optimizer, (self.id, ADAPTER), adapter, self.settings.learn_rate_scale, self.settings.device)
        elif any(parameter.grad is not None for parameter in adapter.values()):
            if not isinstance(optimizer, Optimizer):
                raise SettingError(
                    f"adapter_optimizer = {self.settings.adapter_optimizer!r} cannot be used by nlp.rehearse, which "
                    f"collects the gradients of all components before it changes any. Load the pipeline with null."
                )
            if self._optimizer is None:
                self._optimizer = self._new_optimizer()
            self._optimizer.step(optimizer)
        step_all(optimizer, (self.id, MIX), self.backbone.mix_parameters(), 1.0, self.settings.device)

    def training_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What updates have made of this shim, between two of them: tensors and plain values, by name. The tensors are
        those in use."""
        tensors = {f"value/{name}": parameter.data for name, parameter in self.backbone.trainable().items()}
        facts: dict[str, Any] = {"updates": self._updates, "trained": self._trained}
        if self._optimizer is not None:
            own, facts["optimizer"] = self._optimizer.state()
            tensors |= {f"optimizer/{name}": value for name, value in own.items()}
        return tensors, facts

    def load_training_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put a shim that was initialised alike into the state that `training_state` gave.

        RAISES (StorageError): It is of an adapter with other weights.
        """
        values = {name.removeprefix("value/"): x for name, x in tensors.items() if name.startswith("value/")}
        parameters = self.backbone.trainable()
        unlike = [
            name
            for name in sorted(values.keys() | parameters.keys())
            if name not in values or name not in parameters or values[name].shape != parameters[name].shape
        ]
        if unlike:
            raise StorageError(
                f"the checkpoint is of an adapter with other weights: {unlike[0]} is missing or of another size."
            )
        for name, value in values.items():
            parameters[name].data.copy_(value)
            parameters[name].grad = None
        self._folded = None
        self._updates, self._trained = facts["updates"], facts["trained"]
        if "optimizer" in facts:
            self._optimizer = self._new_optimizer()
            own = {name.removeprefix("optimizer/"): x for name, x in tensors.items() if name.startswith("optimizer/")}
            self._optimizer.load_state(own, facts["optimizer"])

    def optimizer_names(self) -> list[str]:
        """The names under which thinc's optimizer may know something of this shim."""
        return [ADAPTER, MIX, *self.backbone.trainable()]

    def name_averages(self, optimizer: Optimizer) -> None:
        """Give the parameters their parts of the averages that were loaded as one row."""
        name_averages(optimizer, (self.id, ADAPTER), self.backbone.adapter_parameters())
        name_averages(optimizer, (self.id, MIX), self.backbone.mix_parameters())

    def _new_optimizer(self) -> AdapterOptimizer:
        name, adapter = self.settings.adapter_optimizer, self.backbone.adapter_parameters()
        if name is None:
            raise StorageError("the checkpoint has states of an adapter_optimizer, and the settings name none.")
        return AdapterOptimizer(name, adapter, self.settings.learn_rate_scale)

    @contextlib.contextmanager
    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Use other values, such as averages, for the adapter's parameters for a while.

        params (dict): By (shim id, parameter name), as thinc's optimizer keeps them.
        """
        parameters = self._backbone.trainable() if self._backbone else {}
        kept = {name: value.detach().clone() for name, value in parameters.items() if (self.id, name) in params}
        try:
            for name in kept:
                parameters[name].data.copy_(xp2torch(params[self.id, name]))
            yield
        finally:
            for name, value in kept.items():
                parameters[name].data.copy_(value)

    def to_device(self, device_type: str, device_id: int) -> None:
        """Move the weights, unless a setting says where they are. thinc calls this when a model changes hands between
        threads or devices."""
        if self.settings.device is not None:
            return
        if self._backbone is not None and self._backbone.base.quantization is None:
            self._folded = None
            self._backbone.to(torch.device("cuda", device_id) if device_type == "gpu" else torch.device("cpu"))

    def save(self, folder: Path) -> None:
        """Write the backbone into an empty folder; nothing if there is none yet."""
        if self._backbone is not None:
            save_backbone(
                self._backbone, folder, self.settings.store_base, self.settings.store_adapter, self._cutting()
            )

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        self._optimizer = None
        self._trained = True
        self._backbone = load_stored(folder, self.settings.backbone, device_for(self.settings.device))
        self._cut_as(recorded_cutting(folder))

    def to_bytes(self) -> bytes:
        """The files that `save` writes, as one message."""
        with TemporaryFolder() as folder:
            if self.loaded:
                self.save(folder)
                write_seal(folder)
            files = {str(path.relative_to(folder)): _in_chunks(path) for path in folder.rglob("*") if path.is_file()}
        return srsly.msgpack_dumps(files)

    def from_bytes(self, data: bytes) -> "BackboneShim":
        """Read what `to_bytes` gave. The files are kept in a temporary folder for as long as the shim lives, as a base
        that is among them may be saved again."""
        files = _files_in(data)
        if files:
            self._unpacked = TemporaryFolder()
            root = self._unpacked.path
            _unpack(files, root)
            check_seal(root)
            self.load(root)
        return self


def vectors_of(backbone: Backbone, batch: Batch, output: str) -> Tensor:
    """Run the backbone and collect the pieces' states, in one operation a micro-batch, on the device; for tokens, their
    means.

    output (str): "tokens" or "pieces".
    RETURNS (Tensor): float32, shape (tokens or pieces, width); zeros for tokens without pieces.
    RAISES (BaseError): The base's files were written to, see `WatchedFiles`.
    """
    backbone.shared.check_files()
    device = backbone.device
    of_tokens = output == TOKENS
    size = len(batch.pieces_a_token if of_tokens else batch.ids)
    # While another thread loads a base torch's default is that base's dtype.
    rows = torch.zeros((size, backbone.width), dtype=torch.float32, device=device)
    shares = batch.shares_of_tokens() if of_tokens else batch.shares_of_pieces()
    # States go into the result as they come, so that a long document needs no room for all of them.
    for part, share in zip(batch.micro_batches, shares, strict=True):
        positions = None if part.positions is None else torch.from_numpy(part.positions).to(device)
        ids, mask = torch.from_numpy(part.ids).to(device), torch.from_numpy(part.mask).to(device)
        states = backbone.states(ids, mask, positions).flatten(0, 1).float()
        slots, sizes, targets = (torch.from_numpy(x).to(device) for x in (share.slots, share.sizes, share.targets))
        if device.type in WITHOUT_BAGS:
            rows.index_add_(0, targets.repeat_interleave(sizes), states[slots])
            continue
        sums = embedding_bag(slots, states, sizes.cumsum(0) - sizes, mode="sum")
        rows.index_add_(0, targets, sums)
    if not of_tokens:
        return rows
    counts = torch.from_numpy(batch.pieces_a_token).to(device)
    return rows.div_(counts.clamp(min=1)[:, None])


def _from_message(settings: ShimSettings, data: bytes) -> BackboneShim:
    return BackboneShim(settings).from_bytes(data)


def _files_in(data: bytes) -> dict[str, list[bytes]]:
    """RAISES (StorageError): It is not what `to_bytes` gives."""
    try:
        files = srsly.msgpack_loads(data)
    except Exception as error:
        # msgpack has errors of its own.
        raise StorageError(f"the message cannot be read ({error}): get it again.") from error
    named = isinstance(files, dict) and all(isinstance(name, str) for name in files)
    if not named or not all(isinstance(x, list) and all(isinstance(y, bytes) for y in x) for x in files.values()):
        raise StorageError("the message does not hold the files of a pipeline: get it again.")
    return files


def _unpack(files: dict[str, list[bytes]], root: Path) -> None:
    """Write files below a folder.

    RAISES (StorageError): One has a name that leads elsewhere, or that no file can have.
    """
    for name, chunks in files.items():
        try:
            path = (root / name).resolve()
            if root not in path.parents:
                raise StorageError(f"the message names a file {name!r} outside of the pipeline: it is not trusted.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.writelines(chunks)
        except StorageError:
            raise
        except (OSError, ValueError) as error:
            raise StorageError(f"the message names a file {name!r}, which cannot be written: {error}.") from error


def _in_chunks(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return list(iter(lambda: file.read(CHUNK_BYTES), b""))
