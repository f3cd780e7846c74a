"""Reading plain text: UTF-8 files, optionally compressed with xz, in which blank lines separate documents."""

import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import SettingError

SUFFIXES = (".txt", ".txt.xz")


def text_files(paths: Sequence[Path]) -> list[Path]:
    """The text files among paths; for a folder all files in it that end in .txt or .txt.xz, at any depth.

    RAISES (SettingError): A path does not exist, or a folder has none.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise SettingError(
                f"there is no text {str(path)!r}. Name a file or a folder of {' or '.join(SUFFIXES)} files."
            )
        inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES))
        if not inside:
            raise SettingError(f"the folder {str(path)!r} has no file that ends in {' or '.join(SUFFIXES)}.")
        files += inside
    return files


def read_documents(files: Sequence[Path]) -> Iterator[str]:
    """The documents of text files, one after the other.

    RAISES (SettingError): A file is not UTF-8, or not xz though its name says so.
    """
    for path in files:
        open_file = lzma.open if path.suffix == ".xz" else open
        lines: list[str] = []
        line_number = 0
        try:
            with open_file(path, "rb") as file:
                for raw in file:
                    line_number += 1
                    line = raw.decode("utf8")
                    if line.strip():
                        lines.append(line)
                    elif lines:
                        yield "".join(lines)
                        lines = []
        except UnicodeDecodeError as error:
            byte = f"0x{error.object[error.start]:02x} at {error.start}"
            raise SettingError(
                f"the text {str(path)!r} is not UTF-8: line {line_number} has the byte {byte}. Convert the file, with "
                f"iconv for example."
            ) from error
        except (lzma.LZMAError, EOFError) as error:
            raise SettingError(f"the text {str(path)!r} is not a complete xz file: {error}. Get it again.") from error
        if lines:
            yield "".join(lines)


def lowercased(documents: Iterator[str], every: int) -> Iterator[str]:
    """Convert every n-th document to lower case; none if `every` is 0."""
    for i, document in enumerate(documents):
        yield document.lower() if every and i % every == 0 else document
