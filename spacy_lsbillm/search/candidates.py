"""The ways that a search tries: every mask with every combination of the other settings that it fits."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any

from spacy.util import registry

from ..backbone import BaseSettings
from ..backbone.base_config import read_config
from ..errors import MaskError, SettingError
from .experiment import Experiment
from .masks import check_masks
from .training import Training
from .ways import DIMENSIONS, Dimension, format_settings, identity_of, mask_of, way_of

ALL = "all"


def parse_values(dimension: Dimension, text: str, experiment: Experiment) -> list[int]:
    """Parse the values that an option gives for a setting.

    text (str): Whole numbers with commas between them; for the depth also "all", which is the depth of the base.
    RETURNS (list[int]): The values, in the order given.
    RAISES (SettingError): The text is not such a list, a value is out of range, or the model has no such setting.
    """
    architecture = experiment.model["@architectures"]
    if dimension.setting not in inspect.signature(registry.get("architectures", architecture)).parameters:
        raise SettingError(
            f"{dimension.option} {text!r}: the architecture {architecture!r} of the config has no setting "
            f"{dimension.setting!r}. Leave the option out."
        )
    layers = base_layers(experiment)
    deepest = {ALL: str(layers)} if dimension.setting == "depth" else {}
    try:
        values = [int(deepest.get(part.strip(), part)) for part in text.split(",")]
    except ValueError as error:
        also = ', or "all"' if deepest else ""
        raise SettingError(
            f"{dimension.option} {text!r}: give whole numbers with commas between them{also}."
        ) from error
    least = 1 if deepest else 0
    if len(set(values)) < len(values) or min(values) < least:
        raise SettingError(f"{dimension.option} {text!r}: give each value once, none below {least}.")
    if deepest and max(values) > layers:
        raise SettingError(f"{dimension.option} {text!r}: the base has {layers} layers. Use 1 to {layers}.")
    return values


def base_layers(experiment: Experiment) -> int:
    """The number of layers of the base, of which the config may use fewer."""
    model = experiment.model
    return int(read_config(experiment.base, BaseSettings(model["name"], model.get("revision"))).num_hidden_layers)


def combine_ways(
    masks: Sequence[str], values: Mapping[str, Sequence[int]], experiment: Experiment
) -> tuple[list[str], dict[str, str]]:
    """Combine masks with values of other settings, in the order of the settings and then of the masks.

    masks (Sequence[str]): Masks in mask notation. They are checked at each depth: "from:4" or four bits fit some depths
        only.
    values (Mapping): The values of each setting that varies.
    RETURNS (tuple[list[str], dict[str, str]]): The ways, and the combinations that are left out with the reason: the
        mask does not fit the depth, or another way is the same training.
    RAISES (MaskError): A mask fits at no depth, or, if no other setting varies, two masks unmask the same layers.
    """
    if not values:
        check_masks(masks, experiment.n_layers)
        return list(masks), {}
    varied = [dimension.setting for dimension in DIMENSIONS if dimension.setting in values]
    ways: dict[tuple[Any, ...], str] = {}
    same: dict[str, str] = {}
    unfit: dict[str, MaskError] = {}
    for combination in product(*(values[setting] for setting in varied)):
        pairs = dict(zip(varied, combination, strict=True))
        own = {name: value for name, value in pairs.items() if value != _configured(name, experiment)}
        for mask in masks:
            way = way_of(mask, format_settings(own))
            try:
                first = ways.setdefault(identity_of(way, experiment.n_layers), way)
            except MaskError as error:
                unfit[way] = error
            else:
                if first != way:
                    same[way] = f"it is the same training as {first}"
    fitting = {mask_of(way) for way in (*ways.values(), *same)}
    for way, why in unfit.items():
        if mask_of(way) not in fitting:
            raise why
    return list(ways.values()), same | {way: str(why) for way, why in unfit.items()}


def _configured(setting: str, experiment: Experiment) -> int:
    if setting == "depth":
        return experiment.n_layers
    default = next(one.default for one in DIMENSIONS if one.setting == setting)
    return int(experiment.model.get(setting) or default or 0)


def use_stored_names(ways: Sequence[str], trainings: Collection[Training], n_layers: int) -> list[str]:
    """Give each way the name under which it was trained before.

    So it is not trained again under another: "all" and "bits:1111" can be the same way.

    trainings (Collection[Training]): The trainings in a storage.
    RETURNS (list[str]): The ways in the same order, under the stored names where there are any.
    """
    own = {way for training in trainings for way in training.ways}
    trained = sorted({training.way for training in trainings if len(training.masks) == 1})
    names = {identity_of(way, n_layers): way for way in trained}
    return [way if way in own else names.get(identity_of(way, n_layers), way) for way in ways]
