"""The service as a FastAPI application, which ASGI servers run."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..about import __version__
from ..annotation.piping import DeviceLost
from ..errors import MaskError, in_short
from .metrics import TYPE, Metrics
from .page import HEADERS, Form, page, read_form
from .refusal import NOT_ALLOWED, TIMED_OUT, TOO_LARGE, UNAVAILABLE, UNKNOWN, Refused
from .served import Served
from .settings import ServingSettings
from .wanted import SCHEMA, Wanted, read_wanted
from .worker import Worker

# If a body is too large, up to this many more bytes than --max-body are read, so that its sender reads the answer: a
# client whose connection is closed while it sends mostly does not.
DRAINED = 8
# The status counted for a request whose client has closed the connection; it is never sent.
HUNG_UP = 499
CLOSE = {"Connection": "close"}
METRICS = "/metrics"


class App:
    """Pipelines, the thread that runs them, and the application that answers requests.

    pipelines (Sequence[Served]): At least one, with distinct names; the first is the default.
    settings (ServingSettings): Limits and address.
    """

    def __init__(self, pipelines: Sequence[Served], settings: ServingSettings) -> None:
        self._pipelines = {served.name: served for served in pipelines}
        self._settings = settings
        self._metrics = Metrics()
        self.worker = Worker(settings.gather_ms / 1000, settings.max_queue, self._metrics)
        # FastAPI's own pages load scripts from elsewhere and are off; the description of the service is available.
        api = FastAPI(
            title="spacy-lsbillm", version=__version__, docs_url=None, redoc_url=None, lifespan=self._lifespan
        )
        body = {"required": True, "content": {"application/json": {"schema": SCHEMA}}}
        api.post("/v1/annotate", openapi_extra={"requestBody": body})(self.annotate)
        api.get("/v1/pipelines")(self.describe)
        api.get("/health")(self.health)
        api.get(METRICS)(self.metrics)
        api.get("/", include_in_schema=False)(self.empty_page)
        api.post("/", include_in_schema=False)(self.filled_page)
        api.exception_handler(Refused)(_refuse)
        api.exception_handler(HTTPException)(_refuse_unknown)
        api.exception_handler(ClientDisconnect)(_hung_up)
        api.exception_handler(Exception)(_apologise)
        paths = {route.path for route in api.routes if hasattr(route, "path")}
        self.asgi = _Counted(api, self._metrics, paths)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.worker.start()
        yield
        await asyncio.to_thread(self.worker.stop)

    async def annotate(self, request: Request) -> Response:
        """Annotate texts.

        The answer has `pipeline` and `documents`: for each text, in order, its position as `id`, `text`, `ents`, `cats`
        and `spans`; or, for one that fails, `id` and `error`.
        """
        deadline = self._deadline()
        wanted = read_wanted(await self._body(request, deadline), self._settings.max_documents)
        served = self._named(wanted.pipeline)
        documents = await self._annotated(request, served, wanted, deadline)
        return _json({"pipeline": served.name, "documents": documents})

    async def describe(self) -> Response:
        """The pipelines: their components with labels, and the masks of their transformers."""
        return _json({"pipelines": [served.describe() for served in self._pipelines.values()]})

    async def health(self) -> Response:
        """Whether the service can annotate."""
        lost = self.worker.lost
        said = {"status": "ok" if lost is None else lost, "waiting": self.worker.waiting}
        return _json(said, 200 if lost is None else UNAVAILABLE)

    async def metrics(self) -> Response:
        """Counts in the format of Prometheus."""
        gauges = {
            "waiting_documents": ("Texts that wait.", self.worker.waiting),
            "pipelines": ("Pipelines that are served.", len(self._pipelines)),
        }
        return Response(self._metrics.render(gauges), media_type=TYPE)

    async def empty_page(self) -> Response:
        """The page for trying the service, with an empty form."""
        return self._page(Form())

    async def filled_page(self, request: Request) -> Response:
        """The page with a text and its annotation."""
        begun, deadline, form = time.monotonic(), self._deadline(), Form()
        try:
            form = read_form(await self._body(request, deadline))
            wanted = Wanted([form.text], form.pipeline, form.mask or None)
            [record] = await self._annotated(request, self._named(form.pipeline), wanted, deadline)
        except Refused as refused:
            return self._page(form, refused.status, refused.headers, error=str(refused))
        return self._page(form, record=record, seconds=time.monotonic() - begun)

    def _page(self, form: Form, status: int = 200, headers: Mapping[str, str] = HEADERS, **more: Any) -> Response:
        content = page(list(self._pipelines.values()), form, **more)
        return Response(_encoded(content), status, {**HEADERS, **headers}, "text/html; charset=utf-8")

    def _named(self, name: str | None) -> Served:
        if name is None:
            return next(iter(self._pipelines.values()))
        if name not in self._pipelines:
            raise Refused(UNKNOWN, f"there is no pipeline {name!r}; there are: {in_short(list(self._pipelines))}")
        return self._pipelines[name]

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._settings.timeout

    async def _body(self, request: Request, deadline: float) -> bytes:
        """The body of a request.

        RAISES (Refused): It is too large, or was not sent completely in time.
        """
        most = self._settings.max_body
        try:
            async with asyncio.timeout_at(deadline):
                body = await _read(request, most)
        except TimeoutError as error:
            raise Refused(TIMED_OUT, "the body was not sent completely in time", CLOSE) from error
        if body is None:
            raise Refused(
                TOO_LARGE, f"the body has more than the {most:,} bytes allowed: send fewer texts at once", CLOSE
            )
        return body

    async def _annotated(
        self, request: Request, served: Served, wanted: Wanted, deadline: float
    ) -> list[dict[str, Any]]:
        """Annotate the texts of a request.

        RAISES (Refused): The mask is invalid, the queue is full, or it takes too long.
        RAISES (ClientDisconnect): The client has closed the connection.
        """
        try:
            served.check_mask(wanted.mask)
        except MaskError as error:
            raise Refused(NOT_ALLOWED, str(error)) from error
        job = self.worker.submit(served, wanted.mask, wanted.texts)
        done: asyncio.Future[Any] = asyncio.wrap_future(job.future)
        # After the body, the only message about a request is that its client has closed the connection.
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise ClientDisconnect
            return done.result()
        except TimeoutError as error:
            seconds = self._settings.timeout
            message = f"it was not annotated within {seconds:g} seconds: try again later, or with fewer texts"
            raise Refused(UNAVAILABLE, message, {"Retry-After": "1"}) from error
        except DeviceLost as error:
            raise Refused(UNAVAILABLE, str(error)) from error
        finally:
            gone.cancel()
            self.worker.drop(job)


async def _read(request: Request, most: int) -> bytes | None:
    """The body of a request; None if it is too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > DRAINED * most:
        return None
    size, chunks = 0, []
    async for chunk in request.stream():
        size += len(chunk)
        if size > DRAINED * most:
            break
        if size <= most:
            chunks.append(chunk)
    return b"".join(chunks) if size <= most else None


class _Counted:
    """Counts the requests to an application by the paths that it knows."""

    def __init__(self, inner: ASGIApp, metrics: Metrics, paths: set[str]) -> None:
        self._inner, self._metrics, self._paths = inner, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        # The status if an error prevents an answer.
        begun, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._inner(scope, receive, noting)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.request(path, status, time.monotonic() - begun)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _json({"error": str(error)}, error.status, error.headers)


async def _refuse_unknown(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code, error.headers)


async def _hung_up(_: Request, __: Exception) -> Response:
    return Response(status_code=HUNG_UP)


async def _apologise(_: Request, error: Exception) -> Response:
    return _json({"error": f"the service has failed: {type(error).__name__}"}, 500)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    content = _encoded(json.dumps(value, ensure_ascii=False, allow_nan=False))
    return Response(content, status, headers, "application/json")


def _encoded(text: str) -> bytes:
    # Half a surrogate pair, which a text may contain, is not valid UTF-8; as an escape it is valid JSON.
    return text.encode("utf8", "backslashreplace")
