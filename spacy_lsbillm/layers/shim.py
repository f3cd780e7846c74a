"""The shim between thinc and the backbone. It trains, averages and saves only the adapter."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from thinc.api import Optimizer, Shim, xp2torch
from torch import Tensor

from ..alignment import Batch, SpecialPieces, trained_white_space
from ..alignment.white_space import DEFAULT
from ..backbone import (
    INT8,
    Backbone,
    Folded,
    load_backbone,
    load_stored,
    may_fold,
    recorded_cutting,
    room_to_fold,
    save_backbone,
)
from ..backbone.finite import check_states
from ..errors import SettingError, StorageError
from ..files import TemporaryFolder, check_seal, files_in, message_of, unpack, write_seal
from .adapter_optimizer import AdapterOptimizer
from .base_device import device_for
from .optimizer_step import name_averages, step_all
from .shim_settings import ShimSettings
from .state_pooling import vectors_of

# The name under which thinc's optimizer keeps the adapter's states.
ADAPTER, MIX = "adapter", "mix"


class BackboneShim(Shim):
    """Holds the backbone of a thinc model. It is empty before `initialize`, `load` or `from_bytes`.

    white_space (str): How white space is passed to the tokenizer: one of `alignment.white_space.CHOICES`.
    """

    def __init__(self, settings: ShimSettings):
        super().__init__(None)
        self.settings = settings
        self._updates = 0
        # Whether the adapter was trained before, and so has adapted to what its layers see.
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
        # Set between the forward pass of an update and its backward pass.
        self._in_update = False
        self._unpacked: TemporaryFolder | None = None

    @property
    def loaded(self) -> bool:
        """Whether there is a backbone, so that the model can be used."""
        return self._backbone is not None

    @property
    def backbone(self) -> Backbone:
        """The backbone: base, mask plan and adapter.

        RAISES (StorageError): It is not loaded yet.
        """
        if self._backbone is None:
            raise StorageError("the base model is not loaded yet: call nlp.initialize(), or load a trained pipeline.")
        return self._backbone

    @property
    def special(self) -> SpecialPieces:
        """The special pieces of the base's tokenizer, or for a stored pipeline those that it was trained with."""
        if self._special is None:
            self._special = SpecialPieces.of(self.backbone.tokenizer, self.settings.add_bos_token)
        return self._special

    def _cutting(self) -> dict[str, Any]:
        """How text is cut, as it is recorded with the pipeline."""
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
        """Cut text as recorded, unless the settings say otherwise."""
        self._special = None
        self.white_space = trained_white_space(self.settings.white_space, (recorded or {}).get("white_space"))
        if recorded is None:
            return
        self.window, self.overlap = recorded["window"], recorded["overlap"]
        # Pipelines of older versions have none.
        self.repeat = recorded.get("repeat", 0)
        if self.settings.add_bos_token in (None, recorded["add_bos_token"]):
            self._special = SpecialPieces.from_lists(recorded["prefix"], recorded["suffix"])

    def __reduce__(self) -> tuple[Any, ...]:
        # Pipelines are pickled for processes that are not forked.
        return _from_message, (self.settings, self.to_bytes())

    def copy(self) -> "BackboneShim":
        """Copy the shim with its own adapter; the base weights are shared."""
        copied = BackboneShim(self.settings)
        copied._backbone = self._backbone.twin() if self._backbone is not None else None
        copied._unpacked = self._unpacked
        copied._special, copied.window, copied.overlap = self._special, self.window, self.overlap
        copied.white_space, copied.repeat = self.white_space, self.repeat
        copied._updates, copied._trained = self._updates, self._trained
        return copied

    def initialize(self) -> None:
        """Load the base and add a new adapter to it.

        RAISES (SettingError): The settings are those of a pipeline with 8-bit weights, which cannot be trained.
        """
        if self.settings.store_base == INT8:
            raise SettingError(
                'store_base = "int8" is written by `python -m spacy lsbillm quantize` for a trained pipeline, and '
                'cannot be trained. Use "reference", "copy" or "merged", and quantize the result.'
            )
        self._optimizer = None
        self._updates, self._trained = 0, False
        self.repeat = None
        self.white_space = self.settings.white_space or DEFAULT
        self._backbone = load_backbone(self.settings.backbone, device=device_for(self.settings.device))

    def __call__(self, inputs: Batch, is_train: bool) -> tuple[Tensor, Callable[[Tensor], None]]:
        return self.begin_update(inputs) if is_train else (self.predict(inputs), lambda gradient: None)

    def predict(self, inputs: Batch) -> Tensor:
        """Compute vectors without the possibility of a gradient.

        RETURNS (Tensor): Vectors in float32, shape (tokens or pieces, width), on the backbone's device.
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
        """Prepare the first prediction in a forked process.

        RAISES (SettingError): The backbone is on a GPU.
        """
        if self.backbone.device.type != "cpu":
            # CUDA cannot be used after a fork: without this check it fails with an obscure error, or hangs.
            raise SettingError(
                "a pipeline on a GPU cannot be used by several processes: leave n_process = 1, and raise batch_size "
                "instead, the number of documents that the GPU processes at once."
            )
        # The threads of torch's pool do not exist after a fork, and waiting for them would never end.
        torch.set_num_threads(1)
        self._process = os.getpid()

    def _predictor(self) -> Backbone:
        """The backbone, or its copy with the adapter folded in, which is renewed when the adapter has changed."""
        backbone, folded, setting = self.backbone, self._folded, self.settings.fold_adapter
        # With annotating components, training predicts in the middle of each update, and then changes the adapter.
        if self._in_update or not may_fold(backbone, setting):
            self._folded = None
            return backbone
        if folded is not None and folded.fits(backbone):
            return folded.backbone
        # Free the memory of the old copy before the next one is made.
        self._folded = folded = None
        if not room_to_fold(backbone, setting):
            return backbone
        self._folded = folded = Folded(backbone)
        return folded.backbone

    def begin_update(self, inputs: Batch) -> tuple[Tensor, Callable[[Tensor], None]]:
        """Compute vectors for an update.

        RETURNS (tuple): Vectors as from `predict`, and a callback that passes their gradient through the backbone.
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
        # Training needs the memory of the folded copy, and changes the adapter.
        self._folded = None
        self._in_update = True
        weight = self.right_weight
        backbone.set_training(True)
        backbone.weigh_right(weight)
        vectors = vectors_of(backbone, inputs, self.settings.output)

        def backprop(gradient: Tensor) -> None:
            # Gradient checkpointing runs layers again, which must not use what a prediction in between has set.
            backbone.set_training(True)
            backbone.weigh_right(weight)
            if vectors.requires_grad:
                torch.autograd.backward(vectors, gradient.to(vectors.device))
            self._in_update = False

        return vectors.detach(), backprop

    @property
    def right_weight(self) -> float:
        """The weight, from 0 to 1, with which unmasked layers see their right side in the next update.

        It rises linearly over the updates that may change the adapter; an adapter that was trained before begins at 1.
        """
        if self._trained or not self.settings.unmask_warmup:
            return 1.0
        return min(1.0, max(0, self._updates - self.settings.heads_first) / self.settings.unmask_warmup)

    def finish_update(self, optimizer: Optimizer | Callable[..., Any]) -> None:
        """Update the adapter, and the mix of layers if there is one, with thinc's optimizer.

        optimizer (Optimizer | Callable): An optimizer, or a function as `nlp.rehearse` passes one, see `step_all`.
        RAISES (SettingError): There is an `adapter_optimizer` in the settings, which cannot be used with a function.
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
        """The state of training between two updates, for a checkpoint: tensors and plain values, by name.

        The tensors are the ones in use, not copies.
        """
        tensors = {f"value/{name}": parameter.data for name, parameter in self.backbone.trainable().items()}
        facts: dict[str, Any] = {"updates": self._updates, "trained": self._trained}
        if self._optimizer is not None:
            own, facts["optimizer"] = self._optimizer.state()
            tensors |= {f"optimizer/{name}": value for name, value in own.items()}
        return tensors, facts

    def load_training_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore the state that `training_state` returned, in a shim that was initialised with the same settings.

        RAISES (StorageError): The state belongs to an adapter with different weights.
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
                f"the checkpoint is of an adapter with other weights: {unlike[0]} is missing or has another size."
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
        """The names under which thinc's optimizer may keep states for this shim."""
        return [ADAPTER, MIX, *self.backbone.trainable()]

    def name_averages(self, optimizer: Optimizer) -> None:
        """Divide averages that were loaded as one row among the parameters, see `optimizer_step.name_averages`."""
        name_averages(optimizer, (self.id, ADAPTER), self.backbone.adapter_parameters())
        name_averages(optimizer, (self.id, MIX), self.backbone.mix_parameters())

    def _new_optimizer(self) -> AdapterOptimizer:
        name, adapter = self.settings.adapter_optimizer, self.backbone.adapter_parameters()
        if name is None:
            raise StorageError("the checkpoint has states of an adapter_optimizer, and the settings name none.")
        return AdapterOptimizer(name, adapter, self.settings.learn_rate_scale)

    @contextlib.contextmanager
    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Use other values, such as averages, for the adapter's parameters within a `with` block.

        params (dict): The values by (shim id, parameter name), as thinc's optimizer keeps them.
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
        """Move the weights, unless the setting `device` fixes where they are.

        thinc calls this when a model is passed to another thread or device.
        """
        if self.settings.device is not None:
            return
        if self._backbone is not None and self._backbone.base.quantization is None:
            self._folded = None
            self._backbone.to(torch.device("cuda", device_id) if device_type == "gpu" else torch.device("cpu"))

    def save(self, folder: Path) -> None:
        """Write the backbone into an empty folder; write nothing if there is no backbone yet."""
        if self._backbone is not None:
            save_backbone(
                self._backbone, folder, self.settings.store_base, self.settings.store_adapter, self._cutting()
            )

    def load(self, folder: Path) -> None:
        """Load the backbone from a folder that `save` has written."""
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
            return message_of(folder)

    def from_bytes(self, data: bytes) -> "BackboneShim":
        """Load the backbone from what `to_bytes` returned.

        The files stay in a temporary folder for as long as the shim exists, since a base among them may be saved again.
        """
        files = files_in(data)
        if files:
            self._unpacked = TemporaryFolder()
            root = self._unpacked.path
            unpack(files, root)
            check_seal(root)
            self.load(root)
        return self


def _from_message(settings: ShimSettings, data: bytes) -> BackboneShim:
    return BackboneShim(settings).from_bytes(data)
