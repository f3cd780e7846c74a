"""Ways to see right: a mask, and other settings of the model that a search tries with it.

A way is written as its mask and the settings in which it differs from the config: "all", "none repeat=1 depth=4".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..backbone import MaskPlan


@dataclass(frozen=True)
class Dimension:
    """A setting of the model that a search may vary.

    setting (str): The name in the config's model block.
    words (str): The name in reports.
    default (int | None): The value of a config without the setting; None: the base gives it.
    in_shared (bool): Whether ways that differ in this setting need separate shared trainings. False for a setting
        without effect where the mask changes from step to step.
    """

    setting: str
    words: str
    default: int | None = 0
    in_shared: bool = True

    @property
    def option(self) -> str:
        """The name of the command's option."""
        return "--" + self.setting.replace("_", "-")


# The settings of a way are written in this order.
DIMENSIONS = (
    Dimension("repeat", "repeat"),
    Dimension("depth", "depth", None),
    Dimension("unmask_warmup", "warm-up", in_shared=False),
)


def way_of(mask: str, settings: str = "") -> str:
    """Write a way as text.

    settings (str): The settings as text; see `format_settings`.
    """
    return f"{mask} {settings}".rstrip()


def mask_of(way: str) -> str:
    """The mask of a way, in mask notation."""
    return way.partition(" ")[0]


def settings_text(way: str) -> str:
    """The settings of a way as text: what follows the mask."""
    return way.partition(" ")[2]


def settings_of(way: str) -> dict[str, int]:
    """The settings in which a way differs from the config."""
    pairs = (part.partition("=") for part in settings_text(way).split())
    return {name: int(value) for name, _, value in pairs}


def format_settings(settings: Mapping[str, int]) -> str:
    """Write settings as text, in the form in which they follow the mask of a way."""
    return " ".join(f"{one.setting}={settings[one.setting]}" for one in DIMENSIONS if one.setting in settings)


def shared_settings(way: str) -> str:
    """The settings of the shared trainings in which a way takes part, as text."""
    settings = settings_of(way)
    kept = [one.setting for one in DIMENSIONS if one.in_shared and one.setting in settings]
    return format_settings({name: settings[name] for name in kept})


def layers_of(way: str, n_layers: int) -> int:
    """The number of layers that a way uses.

    n_layers (int): The layers of the config's model.
    """
    return settings_of(way).get("depth", n_layers)


def plan_for(way: str, n_layers: int) -> MaskPlan:
    """The mask of a way, parsed for its depth.

    n_layers (int): The layers of the config's model.
    RAISES (MaskError): The mask does not fit the depth.
    """
    return MaskPlan.parse(mask_of(way), layers_of(way, n_layers))


def identity_of(way: str, n_layers: int) -> tuple[Any, ...]:
    """A key that is equal for two ways if they are the same training under two names.

    Examples are "all" and "bits:1111", or a warm-up of the unmasking where nothing is unmasked.

    n_layers (int): The layers of the config's model.
    """
    plan = plan_for(way, n_layers)
    settings = settings_of(way)
    # The parsed mask has an entry per layer, and so tells the depth.
    settings.pop("depth", None)
    if not plan.unmasks_any:
        settings.pop("unmask_warmup", None)
    return (plan.unmasked, *sorted(settings.items()))


def display_name(way: str) -> str:
    """The name of a way in reports: "none, repeat 1, depth 4"."""
    settings = settings_of(way)
    named = (f"{one.words} {settings[one.setting]}" for one in DIMENSIONS if one.setting in settings)
    return ", ".join([mask_of(way), *named])


def find_same_way(way: str, ways: Sequence[str], n_layers: int) -> str | None:
    """Find the way that is the same training as a given one: "none" and "bits:0000" can be.

    RETURNS (str | None): The first such way; None if there is none.
    """
    wanted = identity_of(way, n_layers)
    return next((other for other in ways if identity_of(other, n_layers) == wanted), None)


def file_name(way: str) -> str:
    """The name of a way in a path: "bits:0011" becomes "bits-0011"."""
    return way.replace(":", "-").replace(",", "+").replace(" ", "_")
