"""Loading the tokenizer of a base."""

import contextlib
from pathlib import Path

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ..errors import BaseError
from ..files import parse_json
from .plain_files import refuse_endless
from .vocabulary import fit_tokenizer

# A tokenizer is loaded from any of these files.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")


TOKENIZER_CONFIG, BACKEND = "tokenizer_config.json", "TokenizersBackend"


def load_tokenizer(folder: Path, rows: int | None = None) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a base.

    rows (int | None): Rows of the base's embedding, to which the tokenizer is fitted (`fit_tokenizer`). None: there is
        no base.
    RAISES (BaseError): There is none, it gives no character offsets, or it does not fit the embedding.
    """
    refuse_endless(folder)
    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        # transformers would invent one, or report a missing library.
        raise BaseError(
            f"{folder} holds no tokenizer, that is, a file such as {', '.join(VOCABULARIES[:4])}. Fetch it from the "
            "source of the model, or save one there: "
            f"AutoTokenizer.from_pretrained(…).save_pretrained({str(folder)!r})."
        )
    try:
        if _written_by_transformers_5(folder):
            tokenizer = _from_tokenizer_json(folder)
        else:
            # Otherwise transformers asks at the terminal whether to run code from the folder.
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        # Tokenizer files are read by several libraries with their own errors, some of them bare `Exception`s.
        raise BaseError(f"{folder} holds no tokenizer that can be read: {error}") from error
    if not tokenizer.is_fast:
        raise BaseError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) gives no character offsets, which the alignment "
            f"with spaCy's tokens needs. Save it as a fast tokenizer (tokenizer.json)."
        )
    # The caller cuts documents into windows. Turning these off at the first call would not be safe with threads.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if rows is not None:
        fit_tokenizer(tokenizer, rows, folder)
    return tokenizer


def _written_by_transformers_5(folder: Path) -> bool:
    """Whether a tokenizer has transformers 5's class name for all fast tokenizers, while transformers 4 runs."""
    if hasattr(transformers, BACKEND):
        return False
    with contextlib.suppress(OSError, ValueError):
        return parse_json((folder / TOKENIZER_CONFIG).read_text(encoding="utf8")).get("tokenizer_class") == BACKEND
    return False


def _from_tokenizer_json(folder: Path) -> PreTrainedTokenizerFast:
    """Load what transformers 5 reads from such a folder: tokenizer.json and the names of special tokens."""
    said = parse_json((folder / TOKENIZER_CONFIG).read_text(encoding="utf8"))
    kept = {key: value for key, value in said.items() if key.endswith("_token") or key == "model_max_length"}
    extra = said.get("extra_special_tokens")
    if isinstance(extra, list):
        kept["additional_special_tokens"] = extra
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **kept)
