"""Plots for pages, through matplotlib."""

import io
from typing import Any

from ..errors import SettingError

BLUE, GREY, ORANGE = "#0072B2", "#DDDDDD", "#D55E00"


def check_plots() -> None:
    """Check, before any long work, that plots can be drawn.

    RAISES (SettingError): matplotlib is not installed.
    """
    try:
        pyplot()
    except ImportError as error:
        raise SettingError("the report needs matplotlib: python -m pip install 'spacy-lsbillm[search]'") from error


def pyplot() -> Any:
    """The module `matplotlib.pyplot`, set to draw into files."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def svg(figure: Any) -> str:
    """A figure as SVG, to be embedded in a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot().close(figure)
    return buffer.getvalue().partition("<!DOCTYPE")[2].partition(">\n")[2]
