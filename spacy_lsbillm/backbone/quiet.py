"""Silencing transformers where this package checks for itself."""

import contextlib
from collections.abc import Iterator

import transformers
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers inside the context, where this package checks for itself.

    transformers warns of things that are checked here, such as layers left out on purpose, and version 5 shows a
    progress bar for each base that it reads.
    """
    logging = transformers.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # transformers switches the bars of huggingface_hub together with its own.
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        (enable_progress_bars if hub_bars else disable_progress_bars)()
