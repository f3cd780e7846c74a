"""Importing pyarrow, which is optional."""

from typing import Any

from ..errors import SettingError


def parquet() -> Any:
    """The module `pyarrow.parquet`.

    RAISES (SettingError): It is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise SettingError(
            f"Parquet files need pyarrow ({error}). Install it: python -m pip install 'spacy-lsbillm[parquet]'"
        ) from error
    return pyarrow.parquet
