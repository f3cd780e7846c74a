"""Functions that the commands for searching share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.util import load_config
from thinc.api import Config
from wasabi import msg

from ..errors import SettingError

if TYPE_CHECKING:
    from ..search.folder import SearchReport

EXTRA = "python -m pip install 'spacy-lsbillm[search]'"


def load_overridden(path: Path, overrides: dict[str, Any]) -> Config:
    """Load a config file with overridden settings.

    RAISES (SettingError): There is no such file.
    """
    if not path.is_file():
        raise SettingError(f"there is no config {str(path)!r}.")
    return load_config(path, overrides=overrides, interpolate=False)


def check_extra() -> None:
    """Check that the extra `[search]` is installed.

    RAISES (SettingError): A package of it is missing.
    """
    try:
        import optuna  # noqa: F401
        import scipy  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise SettingError(f"a search needs Optuna and SciPy ({error}): {EXTRA}") from error


def show(report_of_search: "SearchReport") -> None:
    """Print the table of a finished search."""
    print("\n" + report_of_search.paths["table"].read_text(encoding="utf8"))
    chosen, report, config = (
        report_of_search.outcome.chosen,
        report_of_search.paths["report"],
        report_of_search.paths["config"],
    )
    msg.good(f"{chosen} is best on dev. Look at {report}; train with {config}.")


def numbers(option: str, text: str, least: int = 0) -> list[int]:
    """Read a comma-separated list of whole numbers.

    RAISES (SettingError): A part is not a whole number, is below `least` or occurs twice.
    """
    try:
        whole_numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingError(f"{option} {text!r}: give whole numbers with commas between them.") from error
    if len(set(whole_numbers)) < len(whole_numbers) or min(whole_numbers) < least:
        raise SettingError(f"{option} {text!r}: give each number once, none below {least}.")
    return whole_numbers
