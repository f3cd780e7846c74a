"""From folders of pipelines to a service."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ..annotation.piping import LOST_STATUS
from ..errors import SettingError
from .settings import ServingSettings


def serve(folders: Mapping[str, Path], settings: ServingSettings, tell: Callable[[str, str], None]) -> int:
    """Serve pipelines until the process is told to end. What was accepted by then is answered.

    folders (Mapping[str, Path]): By the names that requests have for them; the first is the default.
    settings (ServingSettings): See there.
    tell (Callable[[str, str], None]): Gets a headline and details: what is loaded, and where it listens.
    RETURNS (int): The status to end with: 0, or another if the GPU was lost.
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
