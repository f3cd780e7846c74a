"""The source of imported weights, written beside them for people (README.md) and for programs (origin.json)."""

from typing import Any

from ..pages import front_matter, table
from .file import GGUFFile
from .source import Source

CARD = """---
{front}
---

# {title}

Made from a GGUF file with `{command}`.

{table}

The weights are those of the file, unpacked: they are as exact as its quantisation, whatever the dtype here.
`origin.json` has the same for programs.
"""
UNKNOWN = "not stated in the file"


def origin_record(
    file: GGUFFile, source: Source, digests: dict[str, str], dtype: str, versions: dict[str, str]
) -> dict:
    """What is known about an imported model.

    digests (dict[str, str]): SHA-256 of each file, by name.
    versions (dict[str, str]): The versions of the libraries used.
    """
    return {
        "made_with": command_of(file, source, dtype),
        "files": digests,
        "wheel": source.wheel,
        "package": source.package,
        "name": file.metadata.get("general.name"),
        "architecture": file.architecture,
        "quantizations": file.quantizations,
        "dtype": dtype,
        "license": license_of(file, source),
        "license_link": file.metadata.get("general.license.link"),
        "base_model": _base_model(file),
        "versions": versions,
    }


def command_of(file: GGUFFile, source: Source, dtype: str) -> str:
    """The command that creates the same folder."""
    what = f"--package {source.package}" if source.package else file.name
    precision = "" if dtype == "float32" else f" --dtype {dtype}"
    return f"python -m spacy lsbillm import-gguf {what} FOLDER{precision}"


def license_of(file: GGUFFile, source: Source) -> str | None:
    """The licence, as the file states it, else as its package does. Hugging Face writes licences in lower case."""
    stated = file.metadata.get("general.license") or source.license
    return str(stated).lower() if stated else None


def _base_model(file: GGUFFile) -> str | None:
    """The model on the hub from which the file was made, if it says so."""
    for key in ("general.source.huggingface.repository", "general.source.repo_url", "general.source.url"):
        value = file.metadata.get(key)
        if isinstance(value, str) and value:
            return value.removeprefix("https://huggingface.co/")
    return None


def model_card(file: GGUFFile, record: dict[str, Any], texts: list[str]) -> str:
    """The text of README.md.

    record (dict): See `origin_record`.
    texts (list[str]): The names of the licence files beside it.
    """
    front: dict[str, Any] = {
        "license": record["license"],
        "license_link": record["license_link"],
        "base_model": record["base_model"],
        "language": file.metadata.get("general.languages"),
        "library_name": "transformers",
    }
    source = record["package"] or record["wheel"]
    rows = [
        ("Model", record["name"] or UNKNOWN),
        ("File", "<br>".join(f"`{name}`, SHA-256 `{digest}`" for name, digest in record["files"].items())),
        *([("Package", f"`{source}`")] if source else []),
        ("Architecture", record["architecture"]),
        ("Quantisation", ", ".join(f"{kind}: {count} tensors" for kind, count in record["quantizations"].items())),
        ("Stored here as", record["dtype"]),
        ("Licence", (record["license"] or UNKNOWN) + (f" ({', '.join(texts)})" if texts else "")),
        ("Made by", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]
    return CARD.format(
        front=front_matter(front),
        title=record["name"] or file.name,
        command=record["made_with"],
        table=table(rows),
    )
