"""The formats of the output.

The processes that annotate encode batches of documents; the process that writes joins them to a file without parsing
them again.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, DocBin
from spacy_transformers.pipeline_component import DOC_EXT_ATTR

from ..errors import SettingError
from .arrow import parquet
from .records import record_of

# Where spaCy stores `doc._.trf_data`.
VECTORS: Any = ("._.", DOC_EXT_ATTR, None, None)


class Format(ABC):
    """A format in which shards are written.

    suffix (str): Suffix of the files.
    """

    suffix: str

    def check(self) -> None:  # noqa: B027
        """Check that the libraries that the format needs are installed. By default it needs none.

        RAISES (SettingError): One is missing.
        """

    @abstractmethod
    def encode(self, doc: Doc, spans_keys: Sequence[str] | None) -> Any:
        """Encode a document.

        RAISES (Exception): It cannot be written in this format.
        """

    @abstractmethod
    def pack(self, encoded: Sequence[Any]) -> bytes:
        """Join what `encode` returned for some documents, to be sent to the process that writes."""

    @abstractmethod
    def write(self, packs: Sequence[bytes], path: Path) -> None:
        """Write what `pack` returned into one file, in order."""


class Jsonl(Format):
    """JSONL: one object per line, as `record_of` describes a document."""

    suffix = ".jsonl"

    def encode(self, doc: Doc, spans_keys: Sequence[str] | None) -> bytes:
        record = record_of(doc, spans_keys)
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def pack(self, encoded: Sequence[bytes]) -> bytes:
        return b"".join(encoded)

    def write(self, packs: Sequence[bytes], path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(packs)


class Parquet(Format):
    """One row per document, with the same names as in JSONL as columns. Ids are strings."""

    suffix = ".parquet"

    def check(self) -> None:
        parquet()

    def encode(self, doc: Doc, spans_keys: Sequence[str] | None) -> dict[str, Any]:
        record = record_of(doc, spans_keys)
        # Arrow's maps are lists of pairs.
        pairs = {name: list(record[name].items()) for name in ("cats", "spans")}
        return {**record, "id": str(record["id"]), **pairs}

    def pack(self, encoded: Sequence[dict[str, Any]]) -> bytes:
        import pyarrow

        stream = BytesIO()
        with pyarrow.ipc.new_stream(stream, self._schema()) as writer:
            writer.write_table(pyarrow.Table.from_pylist(list(encoded), schema=self._schema()))
        return stream.getvalue()

    def write(self, packs: Sequence[bytes], path: Path) -> None:
        import pyarrow

        tables = [pyarrow.ipc.open_stream(pack).read_all() for pack in packs]
        table = pyarrow.concat_tables(tables) if tables else self._schema().empty_table()
        parquet().write_table(table, path)

    @staticmethod
    def _schema() -> Any:
        import pyarrow as pa

        span = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string()), ("score", pa.float64())])
        return pa.schema(
            [
                ("id", pa.string()),
                ("text", pa.string()),
                ("ents", pa.list_(span)),
                ("cats", pa.map_(pa.string(), pa.float64())),
                ("spans", pa.map_(pa.string(), pa.list_(span))),
            ]
        )


class Spacy(Format):
    """A `DocBin` with everything that the pipeline has set on the documents except the token vectors.

    Ids are in `doc.user_data["id"]`, scores in `ent._.ent_score`.
    """

    suffix = ".spacy"

    def encode(self, doc: Doc, spans_keys: Sequence[str] | None) -> DocBin:
        doc.user_data.pop(VECTORS, None)
        for key in set(doc.spans) - set(doc.spans if spans_keys is None else spans_keys):
            del doc.spans[key]
        return DocBin(docs=[doc], store_user_data=True)

    def pack(self, encoded: Sequence[DocBin]) -> bytes:
        return _merged(encoded).to_bytes()

    def write(self, packs: Sequence[bytes], path: Path) -> None:
        _merged(DocBin(store_user_data=True).from_bytes(pack) for pack in packs).to_disk(path)


def _merged(stored: Iterable[DocBin]) -> DocBin:
    whole = DocBin(store_user_data=True)
    for one in stored:
        whole.merge(one)
    return whole


FORMATS: dict[str, Format] = {"jsonl": Jsonl(), "parquet": Parquet(), "spacy": Spacy()}


def format_of(name: str) -> Format:
    """The format of a name.

    RAISES (SettingError): The name is unknown, or a library that the format needs is missing.
    """
    if name not in FORMATS:
        raise SettingError(f"--format {name} is not known. Use one of: {', '.join(FORMATS)}.")
    FORMATS[name].check()
    return FORMATS[name]
