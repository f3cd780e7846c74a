"""The state of a pipeline that optimizer steps change: weights, optimizer states, and the counters of layers.

It is not pickled, but consists of named tensors and plain values. Weights that training does not change, such as those
of a base under an adapter, are not part of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spacy.language import Language
from thinc.api import Model, Optimizer, PyTorchShim, Shim, torch2xp, xp2torch
from torch import Tensor

from ..errors import SettingError, StorageError
from ..layers import BackboneShim
from ..layers.shim import ADAPTER, MIX

PLAIN = (bool, int, float, str)
MOMENTS = ("mom1", "mom2", "averages")


@dataclass
class TrainingState:
    """The state of a pipeline and its optimizer between two steps.

    tensors (dict): Tensors by name.
    facts (dict): Values that can be written as JSON, by name.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def trained_models(nlp: Language, exclude: Iterable[str]) -> dict[str, Model]:
    """The models that spaCy's loop updates, by component, with the same condition as in `train_while_improving`."""
    excluded = set(exclude)
    return {
        name: pipe.model  # type: ignore[attr-defined]
        for name, pipe in nlp.pipeline
        if name not in excluded
        and getattr(pipe, "is_trainable", False)
        and getattr(pipe, "model", None) not in (True, False, None)
    }


def _is_plain(value: object) -> bool:
    """Whether JSON preserves it exactly."""
    return isinstance(value, PLAIN) or (isinstance(value, list) and all(isinstance(one, PLAIN) for one in value))


def numbers_of(node: Model) -> dict[str, set[int]]:
    """The attributes of a layer that are sets of numbers, such as the classes that spaCy's parser has not seen yet."""
    return {
        key: value
        for key, value in node.attrs.items()
        if isinstance(value, set) and all(isinstance(number, int) for number in value)
    }


def collect_state(nlp: Language, optimizer: Optimizer, exclude: Iterable[str]) -> TrainingState:
    """Collect everything that later steps depend on, between two steps.

    The tensors may be those in use: store them before the next step.

    exclude (Iterable[str]): Components that are not trained.
    RAISES (SettingError): The state of a layer of some library is not known.
    """
    state = TrainingState()
    labels: dict[tuple[int, str], str] = {}
    for place, node in _nodes(nlp, exclude):
        for name in node.param_names:
            if node.has_param(name):
                _collect_parameter(state, labels, f"{place}/{name}", node, name)
        # Updates change some of them, such as dropout rates, and they are saved with the pipeline.
        state.facts[place] = {key: value for key, value in node.attrs.items() if _is_plain(value)}
        state.facts[f"{place}/sets"] = {key: sorted(value) for key, value in numbers_of(node).items()}
        for number, shim in enumerate(node.shims):
            _collect_shim(state, labels, f"{place}/shim{number}", shim)
    _collect_optimizer(state, labels, optimizer)
    return state


def restore_state(state: TrainingState, nlp: Language, optimizer: Optimizer, exclude: Iterable[str]) -> None:
    """Restore the collected state of a pipeline that was initialised in the same way, and of its optimizer.

    RAISES (StorageError): The state is that of a pipeline with other layers or sizes.
    """
    keys: dict[str, tuple[int, str]] = {}
    shims: list[BackboneShim] = []
    unused = set(state.tensors)
    for place, node in _nodes(nlp, exclude):
        for name in node.param_names:
            if node.has_param(name):
                _restore_parameter(state, keys, unused, f"{place}/{name}", node, name)
        node.attrs.update(state.facts.get(place, {}))
        for key, numbers in state.facts.get(f"{place}/sets", {}).items():
            # Other layers refer to the same set.
            node.attrs[key].clear()
            node.attrs[key].update(numbers)
        for number, shim in enumerate(node.shims):
            label = f"{place}/shim{number}"
            _restore_shim(state, keys, unused, label, shim)
            if isinstance(shim, BackboneShim):
                shims.append(shim)
    _restore_optimizer(state, keys, unused, optimizer)
    for shim in shims:
        shim.name_averages(optimizer)
    if unused:
        raise StorageError(
            f"the checkpoint has weights that the pipeline lacks, such as {min(unused)}: it is of another pipeline."
        )


def _nodes(nlp: Language, exclude: Iterable[str]) -> Iterable[tuple[str, Model]]:
    """All layers of the trained models, with names that are the same in another process, unlike thinc's numbers."""
    seen: set[int] = set()
    for component, model in trained_models(nlp, exclude).items():
        for number, node in enumerate(model.walk()):
            if node.id not in seen:
                seen.add(node.id)
                yield f"{component}/{number}", node


def _collect_parameter(
    state: TrainingState, labels: dict[tuple[int, str], str], label: str, node: Model, name: str
) -> None:
    labels[node.id, name] = label
    state.tensors[f"{label}/value"] = _tensor(node.get_param(name))
    # A layer that had a gradient once is updated from then on, if only by the moments.
    if node.has_grad(name):
        state.tensors[f"{label}/gradient"] = _tensor(node.get_grad(name))


def _restore_parameter(
    state: TrainingState, keys: dict[str, tuple[int, str]], unused: set[str], label: str, node: Model, name: str
) -> None:
    keys[label] = node.id, name
    value = _taken(state, unused, f"{label}/value", tuple(node.get_param(name).shape))
    node.set_param(name, _array(node, value))
    if f"{label}/gradient" in state.tensors:
        node.set_grad(name, _array(node, _taken(state, unused, f"{label}/gradient", tuple(value.shape))))


def _collect_shim(state: TrainingState, labels: dict[tuple[int, str], str], label: str, shim: Shim) -> None:
    if isinstance(shim, BackboneShim):
        tensors, facts = shim.training_state()
        names: Iterable[str] = shim.optimizer_names()
        state.facts[label] = facts
    elif isinstance(shim, PyTorchShim):
        parameters = dict(shim._model.named_parameters())
        tensors = {f"value/{name}": value for name, value in shim._model.state_dict().items()}
        tensors |= {f"gradient/{name}": x.grad for name, x in parameters.items() if x.grad is not None}
        scaler = shim._grad_scaler
        state.facts[label] = {"scale": float(scaler._scale), "growth": int(scaler._growth_tracker)}
        names = parameters
    else:
        raise SettingError(
            f"{label} of the pipeline is a {type(shim).__name__}, whose state in training is not known: it cannot be "
            f"checkpointed. Train without --checkpoint-every."
        )
    for name in names:
        labels[shim.id, name] = f"{label}/{name}"
    state.tensors.update({f"{label}/{name}": value.detach().cpu() for name, value in tensors.items()})


def _restore_shim(
    state: TrainingState, keys: dict[str, tuple[int, str]], unused: set[str], label: str, shim: Shim
) -> None:
    if label not in state.facts:
        raise StorageError(f"the checkpoint lacks {label}, which the pipeline has: it is of another pipeline.")
    prefix = f"{label}/"
    # The optimizer's own states have their own names.
    tensors = {name.removeprefix(prefix): value for name, value in state.tensors.items() if name.startswith(prefix)}
    if isinstance(shim, BackboneShim):
        shim.load_training_state(tensors, state.facts[label])
        names: Iterable[str] = shim.optimizer_names()
    else:
        _restore_torch(shim, tensors, state.facts[label])
        names = dict(shim._model.named_parameters())
    unused.difference_update(f"{prefix}{name}" for name in tensors)
    for name in names:
        keys[f"{label}/{name}"] = shim.id, name


def _restore_torch(shim: PyTorchShim, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    values = {name.removeprefix("value/"): x for name, x in tensors.items() if name.startswith("value/")}
    try:
        shim._model.load_state_dict(values)
    except RuntimeError as error:
        raise StorageError(f"the checkpoint is of a pipeline with other layers: {error}") from error
    for name, parameter in shim._model.named_parameters():
        gradient = tensors.get(f"gradient/{name}")
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    scaler = shim._grad_scaler
    scaler._scale.fill_(facts["scale"])
    scaler._growth_tracker.fill_(facts["growth"])


def _collect_optimizer(state: TrainingState, labels: dict[tuple[int, str], str], optimizer: Optimizer) -> None:
    for kind in MOMENTS:
        values = getattr(optimizer, kind) or {}
        rows = [value for key, value in values.items() if key[1] in (ADAPTER, MIX)]
        for key, value in values.items():
            # Averages by the name of a shim's parameter are views of the shim's row, and are created again.
            if key in labels and not any(_inside(value, row) for row in rows):
                state.tensors[f"optimizer/{kind}/{labels[key]}"] = _tensor(value)
    for kind in ("nr_update", "last_seen"):
        counts = {labels[key]: int(count) for key, count in getattr(optimizer, kind).items() if key in labels}
        state.facts[f"optimizer/{kind}"] = counts


def _restore_optimizer(
    state: TrainingState, keys: Mapping[str, tuple[int, str]], unused: set[str], optimizer: Optimizer
) -> None:
    for name in sorted(unused):
        if not name.startswith("optimizer/"):
            continue
        _, kind, label = name.split("/", 2)
        if kind not in MOMENTS or label not in keys or getattr(optimizer, kind) is None:
            raise StorageError(f"the checkpoint has {name}, which the pipeline lacks: it is of another pipeline.")
        getattr(optimizer, kind)[keys[label]] = torch2xp(state.tensors[name].clone())
        unused.discard(name)
    for kind in ("nr_update", "last_seen"):
        for label, count in state.facts[f"optimizer/{kind}"].items():
            getattr(optimizer, kind)[keys[label]] = count


def _taken(state: TrainingState, unused: set[str], name: str, shape: tuple[int, ...]) -> Tensor:
    """Get an entry of a stored state.

    RAISES (StorageError): It is missing, or has another shape.
    """
    value = state.tensors.get(name)
    if value is None or tuple(value.shape) != shape:
        found = "none" if value is None else f"one of shape {tuple(value.shape)}"
        raise StorageError(
            f"the pipeline has {name} of shape {shape}, but the checkpoint has {found}: it is of another pipeline."
        )
    unused.discard(name)
    return value


def _tensor(array: Any) -> Tensor:
    return xp2torch(array).detach().cpu()


def _array(node: Model, value: Tensor) -> Any:
    return node.ops.asarray(value.numpy().copy())


def _inside(part: Any, row: Any) -> bool:
    """Whether an array is a view of a part of another."""
    return part is not row and part.nbytes <= row.nbytes and 0 <= _address(part) - _address(row) < row.nbytes


def _address(array: Any) -> int:
    pointer = getattr(array.data, "ptr", None)
    return array.__array_interface__["data"][0] if pointer is None else pointer
