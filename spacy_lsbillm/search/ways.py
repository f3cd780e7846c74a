"""Ways of seeing right: a mask, and settings of the model that a search tries beside it. A way is written as its mask
and the settings in which it differs from the config that is searched: "all", "none repeat=1 depth=4"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..backbone import MaskPlan


@dataclass(frozen=True)
class Dimension:
    """A setting of the model that a search may vary.

    setting (str): Its name in the config's model block.
    words (str): What the report calls it.
    default (int | None): What a config without the setting means; None: as the base has it.
    in_shared (bool): Whether trainings that several masks share differ by it. They do not by what has no meaning where
        the mask changes from step to step.
    """

    setting: str
    words: str
    default: int | None = 0
    in_shared: bool = True

    @property
    def option(self) -> str:
        """Of the command."""
        return "--" + self.setting.replace("_", "-")


# A way's settings are written in this order.
DIMENSIONS = (
    Dimension("repeat", "repeat"),
    Dimension("depth", "depth", None),
    Dimension("unmask_warmup", "warm-up", in_shared=False),
)


def way_of(mask: str, settings: str = "") -> str:
    """A way.

    settings (str): As they are written in it.
    """
    return f"{mask} {settings}".rstrip()


def mask_of(way: str) -> str:
    """In mask notation."""
    return way.partition(" ")[0]


def written_settings(way: str) -> str:
    """What follows the mask."""
    return way.partition(" ")[2]


def settings_of(way: str) -> dict[str, int]:
    """Those in which a way differs from the config."""
    pairs = (part.partition("=") for part in written_settings(way).split())
    return {name: int(value) for name, _, value in pairs}


def write_settings(settings: Mapping[str, int]) -> str:
    """As they are written in a way."""
    return " ".join(f"{one.setting}={settings[one.setting]}" for one in DIMENSIONS if one.setting in settings)


def shared_settings(way: str) -> str:
    """Those by which the trainings differ that this way shares with others."""
    found = settings_of(way)
    kept = [one.setting for one in DIMENSIONS if one.in_shared and one.setting in found]
    return write_settings({name: found[name] for name in kept})


def layers_of(way: str, n_layers: int) -> int:
    """How many layers a way uses.

    n_layers (int): Of the config's model.
    """
    return settings_of(way).get("depth", n_layers)


def plan_for(way: str, n_layers: int) -> MaskPlan:
    """The mask of a way at its depth.

    n_layers (int): Of the config's model.
    RAISES (MaskError): It does not fit.
    """
    return MaskPlan.parse(mask_of(way), layers_of(way, n_layers))


def identity_of(way: str, n_layers: int) -> tuple[Any, ...]:
    """The same for two ways that are one training under two names: "all" and "bits:1111", or a warm-up where there is
    nothing to unmask.

    n_layers (int): Of the config's model.
    """
    plan = plan_for(way, n_layers)
    settings = settings_of(way)
    # The mask has an entry for each layer.
    settings.pop("depth", None)
    if not plan.unmasks_any:
        settings.pop("unmask_warmup", None)
    return (plan.unmasked, *sorted(settings.items()))


def in_words(way: str) -> str:
    """A way as a name in reports: "none, repeat 1, depth 4"."""
    found = settings_of(way)
    named = (f"{one.words} {found[one.setting]}" for one in DIMENSIONS if one.setting in found)
    return ", ".join([mask_of(way), *named])


def same_layers(way: str, ways: Sequence[str], n_layers: int) -> str | None:
    """The one of some ways that is the same training, if there is one: "none" is "bits:0000"."""
    wanted = identity_of(way, n_layers)
    return next((other for other in ways if identity_of(other, n_layers) == wanted), None)


def file_name(way: str) -> str:
    """A way as a part of a path: "bits:0011" is "bits-0011"."""
    return way.replace(":", "-").replace(",", "+").replace(" ", "_")
