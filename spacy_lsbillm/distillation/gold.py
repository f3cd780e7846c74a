"""Checks of annotated documents, before the teacher runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spacy.tokens import Doc

from ..data.corpora import corpus_files, read_docs
from ..errors import DataError
from ..pipeline.gold_spans import characters_of_gold
from .teacher import CLASSIFIERS, LABELER


def check_gold(path: Path) -> None:
    """Check gold documents to learn from.

    RAISES (DataError): There are none.
    RAISES (SettingError): They cannot be read.
    """
    check_gold_path(path)
    if next(read_docs("gold", corpus_files(path)), None) is None:
        raise DataError(f"--gold {path} holds no documents. Leave it out, or name annotated ones.")


def check_gold_path(path: Path) -> None:
    """Check the path of gold documents.

    RAISES (DataError): It has no .spacy file.
    """
    if not (path.is_file() and path.suffix == ".spacy") and not (path.is_dir() and any(path.rglob("*.spacy"))):
        raise DataError(
            f"--gold {path} is neither a .spacy file nor a folder of them. `lsbillm convert` creates them from IOB, "
            f"CoNLL and JSONL."
        )


def check_dev(path: Path, taught: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that development documents can tell how good a student is.

    taught (Mapping): The blocks of the components that learn from the teacher, by name.
    RAISES (DataError): There are none with annotation for one of these components.
    RAISES (SettingError): They cannot be read.
    """
    tests = [_has_gold(block) for block in taught.values()]
    if not any(test(doc) for doc in read_docs("dev", corpus_files(path)) for test in tests):
        raise DataError(
            f"no document of {path} has annotation for {' or '.join(map(repr, taught))}, so the best student could not "
            f"be chosen by them. Name annotated ones with --paths.dev; a few hundred are enough."
        )


def _has_gold(block: Mapping[str, Any]) -> Callable[[Doc], bool]:
    """Whether a document is annotated for a component.

    block (Mapping): The component's.
    """
    if block.get("factory") in CLASSIFIERS:
        return lambda doc: bool(doc.cats)
    key = block.get("spans_key") if block.get("factory") == LABELER else None
    return lambda doc: characters_of_gold(doc, key) is not None
