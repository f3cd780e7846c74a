"""`python -m spacy lsbillm serve`: pipelines behind HTTP."""

import sys
from pathlib import Path
from typing import Annotated

from spacy.cli._util import import_code, setup_gpu
from typer import Argument, Exit, Option
from wasabi import msg

from ..errors import SettingError
from ..serving import ServingSettings, serve
from . import app
from .device import HELP, device_of
from .pipelines import any_pipeline_folder

PipelinesArgument = Annotated[
    list[str],
    Argument(help="Trained pipelines: folders or installed packages, each perhaps with a name: NAME=PIPELINE"),
]
HostOption = Annotated[str, Option("--host", help="Address to listen on; 0.0.0.0 is open to the whole network")]
PortOption = Annotated[int, Option("--port", "-p", help="Port to listen on; 0: any that is free")]
GatherOption = Annotated[float, Option("--gather-ms", help="Milliseconds a request may wait for others to go with")]
BodyOption = Annotated[int, Option("--max-body", help="Bytes a request may have")]
DocumentsOption = Annotated[int, Option("--max-documents", help="Texts a request may have")]
LengthOption = Annotated[int, Option("--max-length", help="Characters a text may have")]
QueueOption = Annotated[int, Option("--max-queue", help="Texts that may wait, of all requests together")]
TimeoutOption = Annotated[float, Option("--timeout", help="Seconds a request may take")]
GpuOption = Annotated[int, Option("--gpu-id", "-g", help=HELP)]
CodeOption = Annotated[Path | None, Option("--code", "-c", help="Python file with functions that the pipelines need")]


@app.command("serve")
def serve_cli(
    pipelines: PipelinesArgument,
    host: HostOption = ServingSettings.host,
    port: PortOption = ServingSettings.port,
    gather_ms: GatherOption = ServingSettings.gather_ms,
    max_body: BodyOption = ServingSettings.max_body,
    max_documents: DocumentsOption = ServingSettings.max_documents,
    max_length: LengthOption = ServingSettings.max_length,
    max_queue: QueueOption = ServingSettings.max_queue,
    timeout: TimeoutOption = ServingSettings.timeout,
    gpu_id: GpuOption = -1,
    code: CodeOption = None,
) -> None:
    """Serve trained pipelines over HTTP, with a page at / to try them. Those over the same base have it in memory once.

    POST /v1/annotate takes {"texts": [...], "pipeline": NAME} and answers with what annotate writes of each text.
    GET /v1/pipelines, /health and /metrics say what is served and how it does. It has no passwords and no encryption:
    it listens to this machine alone, unless --host says otherwise.

    Example: python -m spacy lsbillm serve requests=training/model-best diseases=en_diseases --port 8000
    """
    try:
        settings = ServingSettings(host, port, gather_ms, max_body, max_documents, max_length, max_queue, timeout)
        folders = _named(pipelines)
        device_of(gpu_id)
        import_code(code)
        setup_gpu(gpu_id, silent=True)
        status = serve(folders, settings, _tell)
    except (ValueError, OSError) as error:
        msg.fail("Cannot serve", str(error), exits=1)
    raise Exit(status)


def _tell(headline: str, details: str) -> None:
    msg.good(headline, details)
    # It is read while the command runs, perhaps by another program.
    sys.stdout.flush()


def _named(pipelines: list[str]) -> dict[str, Path]:
    """The folders of pipelines, by name.

    RAISES (ValueError): There is none such, or two have the same name.
    """
    folders: dict[str, Path] = {}
    for given in pipelines:
        name, equals, pipeline = given.partition("=")
        if not equals or Path(given).is_dir():
            name, pipeline = Path(given).resolve().name if Path(given).is_dir() else given, given
        if not name:
            raise SettingError(f"{given!r} has no name before its =. Write NAME=PIPELINE.")
        if name in folders:
            raise SettingError(f"two pipelines have the name {name!r}. Give them others: NAME=PIPELINE.")
        folders[name] = any_pipeline_folder(pipeline)
    return folders
