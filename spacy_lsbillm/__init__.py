"""Bidirectional, label-supervised LLMs as spaCy pipelines."""

import logging
from typing import TYPE_CHECKING, Any

from .about import __version__

if TYPE_CHECKING:
    from .saving.pipelines import save

__all__ = ["__version__", "save"]

# peft imports bitsandbytes for any adapter, which asks, on CPUs with AVX512-BF16, for a package with a kernel that is
# not used here, see `backbone.weights`.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    # The backbone runs where there is no spaCy.
    if name == "save":
        from .saving.pipelines import save

        return save
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
