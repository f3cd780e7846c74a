"""Finding the billm_transformers in a config."""

from typing import Any

from ..errors import SettingError


def billm_blocks(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The blocks of all billm_transformers in a config, by component name."""
    components = config.get("components", {})
    return {name: block for name, block in components.items() if block.get("factory") == "billm_transformer"}


def find_transformer(config: dict[str, Any], name: str | None = None, where: str = "") -> tuple[str, dict[str, Any]]:
    """The name and the block of the billm_transformer in a config.

    name (str | None): Its name, if there are several.
    where (str): The config's file, for the message.
    RAISES (SettingError): There is none, none with that name, or several and no name.
    """
    blocks = billm_blocks(config)
    present = ", ".join(config.get("components", {})) or "nothing"
    place = f"the config {where}".rstrip()
    if not blocks:
        raise SettingError(
            f"{place} has no billm_transformer; it has: {present}. One that is sourced from "
            f"a trained pipeline has its settings in that pipeline's config.cfg."
        )
    if name is None and len(blocks) > 1:
        raise SettingError(f"{place} has several: {', '.join(blocks)}. Choose one with --component.")
    if name is not None and name not in blocks:
        raise SettingError(f"{place} has no billm_transformer {name!r}; it has: {', '.join(blocks)}.")
    chosen = name or next(iter(blocks))
    return chosen, blocks[chosen]
