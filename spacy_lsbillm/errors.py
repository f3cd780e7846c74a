"""The errors of this package. All are `ValueError`s: each names the value, what is allowed and what to do next."""

from collections.abc import Sequence

LONGEST_LIST = 5


class MaskError(ValueError):
    """A mask notation that cannot be read, or that does not fit the model."""


class BaseError(ValueError):
    """A base model that cannot be found, read or used."""


class AdapterError(ValueError):
    """LoRA settings that do not fit the model, or an adapter that cannot be read."""


class StorageError(ValueError):
    """A saved component that cannot be written or read back."""


class ListenerError(ValueError):
    """A component listens for vectors that are not there, or for those of another transformer."""


class SettingError(ValueError):
    """Any other setting out of its range."""


class DataError(ValueError):
    """Annotated text that cannot be read or does not fit."""


OWN_ERRORS = (MaskError, BaseError, AdapterError, StorageError, ListenerError, SettingError, DataError)


def in_short(values: Sequence[object]) -> str:
    """The first few values for a message, and how many more there are."""
    shown = ", ".join(map(repr, values[:LONGEST_LIST]))
    more = len(values) - LONGEST_LIST
    return f"{shown} and {more:,} more" if more > 0 else shown
