"""Reading corpora in spaCy's own format for commands."""

import sys
from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import SettingError


def corpus_files(path: Path) -> list[Path]:
    """The .spacy files of a corpus.

    RAISES (SettingError): There are none.
    """
    if not path.exists():
        raise SettingError(f"there is no corpus {str(path)!r}. Name a .spacy file or a folder that contains some.")
    if path.is_file() and path.suffix != ".spacy":
        raise SettingError(f"the corpus {str(path)!r} is not a .spacy file. Convert it with: python -m spacy convert")
    files = sorted(path.rglob("*.spacy")) if path.is_dir() else [path]
    if not files:
        raise SettingError(f"the folder {str(path)!r} holds no .spacy file.")
    return files


def read_docs(name: str, files: list[Path]) -> Iterator[Doc]:
    """The documents of a corpus, with a progress bar on standard error.

    RAISES (SettingError): A file is damaged.
    """
    for path in files:
        try:
            docs = DocBin().from_disk(path)
        except Exception as error:
            # zlib and msgpack raise their own errors.
            raise SettingError(f"the corpus file {str(path)!r} cannot be read: {error}. Convert it again.") from error
        yield from tqdm(docs.get_docs(Vocab()), total=len(docs), desc=name, unit=" docs", file=sys.stderr, leave=False)
