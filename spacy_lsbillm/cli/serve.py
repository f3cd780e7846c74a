"""`python -m spacy lsbillm serve`: annotate over HTTP."""

import sys
from pathlib import Path
from typing import Annotated

from spacy.cli._util import import_code, setup_gpu
from typer import Argument, Exit, Option
from wasabi import msg

from ..errors import SettingError
from ..serving import ServingSettings, serve
from . import app
from .device import device_of
from .options import CodeOption, GpuOption
from .pipelines import any_pipeline_folder

PipelinesArgument = Annotated[
    list[str],
    Argument(help="Trained pipelines: folders or installed packages. Give one a name with NAME=PIPELINE"),
]
HostOption = Annotated[str, Option("--host", help="Address to listen on; 0.0.0.0 opens it to the whole network")]
PortOption = Annotated[int, Option("--port", "-p", help="Port to listen on; 0 chooses a free one")]
GatherOption = Annotated[float, Option("--gather-ms", help="Milliseconds to wait for further requests for a batch")]
BodyOption = Annotated[int, Option("--max-body", help="Maximum bytes per request")]
DocumentsOption = Annotated[int, Option("--max-documents", help="Maximum texts per request")]
LengthOption = Annotated[int, Option("--max-length", help="Maximum characters per text")]
QueueOption = Annotated[int, Option("--max-queue", help="Maximum waiting texts of all requests together")]
TimeoutOption = Annotated[float, Option("--timeout", help="Maximum seconds per request")]


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
    """Serve trained pipelines over HTTP, with a page at / for trying them. Pipelines over one base share its weights.

    POST /v1/annotate accepts {"texts": [...], "pipeline": NAME} and returns the annotation of each text, in the format
    of the annotate command. GET /v1/pipelines lists the pipelines, /health and /metrics report the state of the
    service. There are no passwords and no encryption: only this machine can connect, unless --host opens the service.

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
    """The folders of the given pipelines, by name.

    RAISES (ValueError): A pipeline does not exist, or two have the same name.
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
