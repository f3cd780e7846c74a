"""The state of an output folder, from which a run continues that was stopped at any moment.

    manifest.json   what is annotated with what, and at the end the totals
    done.jsonl      one line per complete shard
    failures.jsonl  one line per document that was set aside
    shards/         the annotated documents, in the order of the input

A shard is written under a temporary name, synced and renamed before its line is added to `done.jsonl`. A shard without
such a line, or with another size than its line says, is written again.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..files import PARTIAL, parse_json, replaced_file, write_text
from .annotator import Failure
from .batches import Shard
from .formats import Format
from .identity import differences, versions

MANIFEST, DONE, FAILURES, SHARDS = "manifest.json", "done.jsonl", "failures.jsonl", "shards"
VERSION = 1


@dataclass(frozen=True)
class DoneShard:
    """A complete shard.

    number (int): From 0.
    file (str): Its file name.
    size (int): Its size in bytes.
    ends (tuple[str, str]): Where its first and its last document are in the input.
    items (int): Number of documents of the input.
    documents (int), words (int): Numbers of documents and words in the file.
    failures (list[Failure]): The other documents.
    """

    number: int
    file: str
    size: int
    ends: tuple[str, str]
    items: int
    documents: int
    words: int
    failures: list[Failure] = field(default_factory=list)


class Output:
    """The output folder of one annotation. Only one process may write to it.

    path (Path): The folder; it is created.
    format_ (Format): The format of the shards.
    identity (dict): What identifies this annotation.
    warn (Callable): Called with each warning.
    RAISES (StorageError): The folder contains something else, or another annotation.
    """

    def __init__(self, path: Path, format_: Format, identity: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        self.path = path
        self._format = format_
        self._manifest = self._read_manifest(identity, warn)
        (path / SHARDS).mkdir(parents=True, exist_ok=True)
        self._write_json(path / MANIFEST, self._manifest)
        for left in (path / SHARDS).glob(f"*{PARTIAL}"):
            left.unlink()
        self.done = {shard.number: shard for shard in self._read_done(warn)}
        # Lines that were cut short are dropped, and so are failures of shards that will be written again.
        self._write_lines(path / DONE, map(asdict, self.done.values()))
        self._write_lines(
            path / FAILURES, (asdict(failure) for shard in self.done.values() for failure in shard.failures)
        )

    @property
    def complete(self) -> bool:
        """Whether the whole input is annotated."""
        return "sums" in self._manifest and len(self.done) == self._manifest["sums"]["shards"]

    @property
    def failures(self) -> int:
        """Number of documents of finished shards that were set aside."""
        return sum(len(shard.failures) for shard in self.done.values())

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard is complete.

        RAISES (StorageError): It is, but it was read from another part of the input.
        """
        done = self.done.get(shard.number)
        if done is None:
            return False
        if done.ends != shard.ends or done.items != len(shard.items):
            raise StorageError(
                f"{done.file} in {self.path / SHARDS} was made of {done.items:,} documents from {done.ends[0]} to "
                f"{done.ends[1]}, and the input now has {len(shard.items):,} there, from {shard.ends[0]} to "
                f"{shard.ends[1]}: a file that could not be read then can be read now, or the other way round. Name "
                f"another output folder."
            )
        return True

    def add_failure(self, failure: Failure) -> None:
        """Record a document that was set aside, at once."""
        self._append(self.path / FAILURES, asdict(failure), flush=False)

    def write(self, shard: Shard, packs: Sequence[bytes], documents: int, words: int, failures: list[Failure]) -> None:
        """Write a shard.

        packs (Sequence[bytes]): Its documents in order, as the format has packed them.
        RAISES (OSError): It cannot be written.
        """
        path = self.path / SHARDS / f"part-{shard.number:06}{self._format.suffix}"
        with replaced_file(path) as partial:
            self._format.write(packs, partial)
        size = path.stat().st_size
        done = DoneShard(shard.number, path.name, size, shard.ends, len(shard.items), documents, words, failures)
        self._append(self.path / DONE, asdict(done), flush=True)
        self.done[shard.number] = done

    def finish(self) -> dict[str, int]:
        """Write the totals of all shards, which marks the annotation as complete. RETURNS (dict): The totals."""
        shards = self.done.values()
        sums = {
            "shards": len(shards),
            "documents": sum(shard.documents for shard in shards),
            "words": sum(shard.words for shard in shards),
            "failures": self.failures,
        }
        self._manifest["sums"] = sums
        self._write_json(self.path / MANIFEST, self._manifest)
        return sums

    def _read_manifest(self, identity: Mapping[str, Any], warn: Callable[[str], None]) -> dict[str, Any]:
        path = self.path / MANIFEST
        if self.path.exists() and not self.path.is_dir():
            raise StorageError(f"{self.path} is a file: name a folder to write.")
        new = {"version": VERSION, "identity": identity, "versions": versions()}
        if not path.is_file():
            if self.path.exists() and any(self.path.iterdir()):
                raise StorageError(
                    f"{self.path} is not empty and holds no {MANIFEST}, so it is not the output of this command. "
                    f"Name another folder."
                )
            return new
        try:
            old = parse_json(path.read_bytes())
            same_version = old["version"] == VERSION
            differing = differences(old["identity"], identity) if same_version else ["it is from another version"]
            before = old["versions"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{path} cannot be read ({type(error).__name__}: {error}). Name another folder, or remove this one."
            ) from error
        if differing:
            raise StorageError(
                f"{self.path} is the output of another run:\n"
                + "".join(f"  {line}\n" for line in differing)
                + "Set that back, or name another output folder."
            )
        changed = [
            f"{name} {before.get(name)}, now {now}" for name, now in versions().items() if before.get(name) != now
        ]
        if changed:
            warn(
                f"The existing output was made with other versions, which may compute otherwise: {', '.join(changed)}."
            )
        return {**old, "versions": new["versions"]}

    def _read_done(self, warn: Callable[[str], None]) -> list[DoneShard]:
        """The complete shards, in order."""
        shards: dict[int, DoneShard] = {}
        path = self.path / DONE
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                said = parse_json(line)
                failures = [Failure(**failure) for failure in said.pop("failures")]
                shard = DoneShard(**{**said, "ends": tuple(said["ends"])}, failures=failures)
                whole = (self.path / SHARDS / shard.file).stat().st_size == shard.size
            except (ValueError, KeyError, TypeError, AttributeError):
                # Cut short by a kill or a full disk: the shard is written again.
                continue
            except FileNotFoundError:
                whole = False
            if whole:
                shards[shard.number] = shard
            else:
                warn(f"{shard.file} is missing or has another size than when it was written: it is made again.")
        return [shards[number] for number in sorted(shards)]

    def _append(self, path: Path, content: Mapping[str, Any], flush: bool) -> None:
        with path.open("ab") as file:
            file.write(_line(content))
            if flush:
                file.flush()
                os.fsync(file.fileno())

    def _write_lines(self, path: Path, contents: Any) -> None:
        with replaced_file(path) as partial, partial.open("wb") as file:
            file.writelines(map(_line, contents))

    def _write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode(errors="replace") + b"\n"
