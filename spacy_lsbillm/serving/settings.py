"""The settings of a service."""

from dataclasses import dataclass

from ..errors import SettingError
from ..values import is_number, is_whole

HIGHEST_PORT = 65535
LONGEST_GATHER_MS = 1000


@dataclass(frozen=True)
class ServingSettings:
    """The address of the service, and its limits.

    host (str): An address of this machine.
    port (int): 0: any free port.
    gather_ms (float): Milliseconds that a request may wait for others to be annotated with.
    max_body (int): Maximum bytes of a request's body.
    max_documents (int): Maximum texts per request.
    max_length (int): Maximum characters per text.
    max_queue (int): Maximum texts, over all requests, that are accepted but not yet being annotated.
    timeout (float): Maximum seconds from a request to its answer.
    RAISES (SettingError): A value is not allowed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    gather_ms: float = 5.0
    max_body: int = 1_048_576
    max_documents: int = 1_000
    max_length: int = 100_000
    max_queue: int = 4_000
    timeout: float = 30.0

    def __post_init__(self) -> None:
        _check_range("--port", self.port, 0, HIGHEST_PORT)
        for option in ("max_body", "max_documents", "max_length", "max_queue"):
            _check_range(f"--{option.replace('_', '-')}", getattr(self, option), 1)
        if self.max_queue < self.max_documents:
            raise SettingError(
                f"--max-queue {self.max_queue} is less than --max-documents {self.max_documents}: a request with that "
                f"many texts would never be accepted. Allow a longer queue, or fewer texts."
            )
        if not (is_number(self.gather_ms) and 0 <= self.gather_ms <= LONGEST_GATHER_MS):
            raise SettingError(
                f"--gather-ms {self.gather_ms} is not allowed: it must be between 0 and {LONGEST_GATHER_MS} ms."
            )
        if not (is_number(self.timeout) and self.timeout > 0):
            raise SettingError(f"--timeout {self.timeout} is not allowed: it must be a number of seconds above 0.")


def _check_range(option: str, value: object, lowest: int, highest: int | None = None) -> None:
    if not (is_whole(value) and lowest <= value and (highest is None or value <= highest)):  # type: ignore[operator]
        allowed = f"{lowest} or above" if highest is None else f"between {lowest} and {highest}"
        raise SettingError(f"{option} {value} is not allowed: it must be a whole number, {allowed}.")
