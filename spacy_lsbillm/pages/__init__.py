"""HTML pages of reports with plots, and the Markdown of model cards."""

from .markdown import code, front_matter, plain, table
from .page import as_page, markdown_as_html
from .plotting import BLUE, GREY, ORANGE, check_plots, pyplot, svg

__all__ = [
    "BLUE",
    "GREY",
    "ORANGE",
    "as_page",
    "check_plots",
    "code",
    "front_matter",
    "markdown_as_html",
    "plain",
    "pyplot",
    "svg",
    "table",
]
