"""Bidirectional, label-supervised LLMs as spaCy pipelines."""

from typing import TYPE_CHECKING, Any

from .about import __version__

if TYPE_CHECKING:
    from .saving import save

__all__ = ["__version__", "save"]


def __getattr__(name: str) -> Any:
    # The backbone runs where there is no spaCy.
    if name == "save":
        from .saving import save

        return save
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
