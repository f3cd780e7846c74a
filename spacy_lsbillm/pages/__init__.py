"""Reports to look at: pages of HTML with pictures in them."""

from .page import as_page, markdown_as_html
from .plotting import BLUE, GREY, ORANGE, check_plots, pyplot, svg

__all__ = ["BLUE", "GREY", "ORANGE", "as_page", "check_plots", "markdown_as_html", "pyplot", "svg"]
