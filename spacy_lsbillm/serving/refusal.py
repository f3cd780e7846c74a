"""Requests that get no annotation."""

BAD_JSON, UNKNOWN, TIMED_OUT, TOO_LARGE, NOT_ALLOWED, TOO_MANY, UNAVAILABLE = 400, 404, 408, 413, 422, 429, 503


class Refused(ValueError):
    """A request is refused; the message says why.

    status (int): HTTP status of the answer.
    headers (dict[str, str]): Additional headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
