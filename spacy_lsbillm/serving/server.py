"""The socket of the service, and the uvicorn server behind it."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import SettingError

# Seconds that a connection may be silent between two requests.
KEEP_ALIVE = 30
# Additional seconds, beyond the limit of a request, for running requests to end.
GRACE = 5


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to its address that does not listen yet.

    So a port in use is noticed before anything is loaded, and no client can connect before it can get an answer.

    RAISES (SettingError): The address is unavailable.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise SettingError(_why(host, port, error)) from error
    return listening


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} of {host} is in use. Choose another, or 0 for any that is free."
    if error.errno == errno.EACCES:
        return f"--port {port} is not allowed for this user: choose one of 1024 or above."
    return f"--host {host} cannot be listened on ({error.strerror or error}). Give an address of this machine."


class _Protocol(H11Protocol):
    """HTTP in which clients must send a request's header within the time limit of a request.

    uvicorn itself waits for it forever.
    """

    patience = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.patience, self._hang_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._timer.cancel()
        elif self._timer.cancelled():
            self._timer = self.loop.call_later(self.patience, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _hang_up(self) -> None:
        self.transport.close()


class Server(uvicorn.Server):
    """When asked to end (SIGTERM, SIGINT), answers the accepted requests and then returns.

    app (ASGIApp): The application that answers.
    patience (float): Maximum seconds per request.
    """

    def __init__(self, app: Any, patience: float) -> None:
        config = uvicorn.Config(
            app,
            http=type("Protocol", (_Protocol,), {"patience": patience}),
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(patience + GRACE),
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn would raise the received signals again, which would end the process.
            self._captured_signals.clear()
