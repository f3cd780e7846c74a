"""Connecting to a Ray cluster."""

import os
import socket
from typing import Any

from .errors import SettingError

# Seconds within which something must answer at the address.
CONNECT_SECONDS = 5.0
# What a client of gRPC says first (HTTP/2: a fixed text and a frame of settings), and the kind of frame that answers.
GREETING, SETTINGS_FRAME = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), 4


def connected(address: str) -> Any:
    """Connect to a cluster, and return the module `ray`.

    address (str): HOST:PORT, ray://HOST:PORT, or "auto" for the cluster that this machine is part of.
    RAISES (SettingError): It is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise SettingError(
            f"--ray needs Ray ({error}). Install it: python -m pip install 'spacy-lsbillm[ray]'; or leave out --ray: "
            f"processes on one machine do not need it."
        ) from error
    remedy = "Start one with `ray start --head`, or leave out --ray: processes on one machine do not need it."
    if address != "auto":
        _check_listening(address, remedy)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        # There are many kinds of errors, such as those of gRPC and of versions that do not fit.
        where = "on this machine" if address == "auto" else f"at {address}"
        raise SettingError(f"no Ray cluster can be used {where} ({last_line(error)}). {remedy}") from error
    return ray


def room_of(ray: Any, gpu: bool) -> int:
    """The number of processes that fit into the whole cluster, each with a core, or with a GPU and a core."""
    resources = ray.cluster_resources()
    return int(min(resources.get("CPU", 0), resources.get("GPU", 0) if gpu else float("inf")))


def last_line(error: BaseException) -> str:
    """The last line of an error's message, as Ray's own messages include a whole traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _check_listening(address: str, remedy: str) -> None:
    """Check that a Ray cluster answers at an address.

    RAISES (SettingError): It is not an address, or nothing listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise SettingError(f"--ray {address} is not an address: give HOST:PORT, such as 10.0.0.1:6379. {remedy}")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as connection:
            # Ray itself would try for minutes to talk to whatever listens there. With TLS this cannot be seen.
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(GREETING)
                answer = connection.recv(9)
                if len(answer) < 4 or answer[3] != SETTINGS_FRAME:
                    raise OSError(f"what listens there answers {answer!r}, which is not Ray's protocol")
    except (OSError, OverflowError) as error:
        raise SettingError(f"no Ray cluster runs at {address} ({error}). {remedy}") from error
