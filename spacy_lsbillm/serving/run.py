"""Starting a service from folders of pipelines."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ..annotation.piping import LOST_STATUS
from ..errors import SettingError
from .settings import ServingSettings


def serve(folders: Mapping[str, Path], settings: ServingSettings, tell: Callable[[str, str], None]) -> int:
    """Serve pipelines until the process receives a signal to end. Requests accepted by then are answered.

    folders (Mapping[str, Path]): The pipelines by the names for requests; the first is the default.
    settings (ServingSettings): Limits and address.
    tell (Callable[[str, str], None]): Called with a headline and details of what is loaded, and of the address.
    RETURNS (int): The exit status: 0, or another if the GPU was lost.
    RAISES (SettingError): FastAPI or uvicorn is not installed, the address is in use, or a pipeline cannot be loaded.
    """
    try:
        from .app import App
        from .server import Server, bound
    except ImportError as error:
        raise SettingError(
            f"serve needs FastAPI and uvicorn ({error}). Install them: python -m pip install 'spacy-lsbillm[serve]'"
        ) from error
    from .served import Served

    with bound(settings.host, settings.port) as socket:
        pipelines = [Served.load(name, folder, settings.max_length) for name, folder in folders.items()]
        bases = len(set().union(*(served.bases for served in pipelines)))
        tell(
            f"Loaded {_number(len(pipelines), 'pipeline')} over {_number(bases, 'base')}",
            ", ".join(served.name for served in pipelines),
        )
        app = App(pipelines, settings)
        server = Server(app.asgi, settings.timeout)

        def end() -> None:
            server.should_exit = True

        app.worker.when_lost = end
        host, port = socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        # From here on connections wait until they are answered.
        socket.listen()
        tell(f"Listening on http://{shown}:{port}", "End with Ctrl+C")
        server.run(sockets=[socket])
    return 0 if app.worker.lost is None else LOST_STATUS


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
