"""The code blocks of the documentation, classified as commands and as their output."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
while not (ROOT / "setup.cfg").is_file():
    ROOT = ROOT.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"python", "pre-commit", "ray", "taskset", "torchrun", "curl", "hf"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(python3? -m spacy [^`]+)`")


@dataclass(frozen=True)
class Fence:
    """A block between two lines with three backticks.

    page (str): The file, relative to the repository.
    language (str): The text after the backticks.
    """

    page: str
    language: str
    text: str

    @property
    def is_commands(self) -> bool:
        return self.language == "sh" or (not self.language and self.text.split()[0] in PROGRAMS)

    @property
    def is_output(self) -> bool:
        """Whether the block was printed or written by a program."""
        return self.language == "json" or (not self.language and not self.is_commands)


def fences() -> list[Fence]:
    """All blocks of the README and of docs/, in order."""
    found = []
    for path in PAGES:
        for match in FENCE.finditer(path.read_text(encoding="utf8")):
            text = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
            found.append(Fence(path.relative_to(ROOT).as_posix(), match["language"], text))
    return found


def commands(blocks: Iterable[Fence]) -> Iterator[tuple[str, list[str]]]:
    """The page and the words of every command line."""
    for fence in blocks:
        if fence.is_commands:
            for line in re.sub(r"\\\n", " ", fence.text).splitlines():
                for command in line.split(" && "):
                    # In the first call, a shell would replace $resume by nothing.
                    words = [word for word in shlex.split(command, comments=True) if not word.startswith("$")]
                    if words:
                        yield fence.page, words


def commands_in_sentences() -> Iterator[tuple[str, list[str]]]:
    """The page and the words of every `python -m spacy …` outside of blocks."""
    for path in PAGES:
        for match in INLINE.finditer(FENCE.sub("", path.read_text(encoding="utf8"))):
            yield path.relative_to(ROOT).as_posix(), shlex.split(match[1])
