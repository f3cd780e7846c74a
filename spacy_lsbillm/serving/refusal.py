"""Requests that are not answered with an annotation."""

BAD_JSON, UNKNOWN, TIMED_OUT, TOO_LARGE, NOT_ALLOWED, TOO_MANY, UNAVAILABLE = 400, 404, 408, 413, 422, 429, 503


class Refused(ValueError):
    """Why a request is refused.

    status (int): Of the answer.
    headers (dict[str, str]): That it has.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}
