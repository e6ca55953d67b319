"""The addresses beside the webhooks: health, metrics, and a plain word at every other one."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calls.errors import CalltallyError
from ingest.counters import Counters

WEBHOOKS = "/webhooks/"


def create_app(
    counters: Counters, unready: Callable[[], CalltallyError | None], unknown_source: Callable[[str], None]
) -> Starlette:
    """The application for all that is no source's address; `unknown_source` is told of names that nobody has."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        error = unready()
        if error is None:
            return JSONResponse({"status": "ready"})
        return _error(503, error.code, error.message)

    async def metrics(_: Request) -> Response:
        return Response(counters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        path = request.url.path
        if path.startswith(WEBHOOKS):
            unknown_source(path.removeprefix(WEBHOOKS))
            message = "There is no such source. Check the address against `calltally sources list`."
            return _error(404, "unknown_source", message, close=True)
        if status == 405:
            return _error(405, "method_not_allowed", "Only GET is answered here.", close=True)
        return _error(
            404, "not_found", "There is nothing at this address. Webhooks go to /webhooks/{source}.", close=True
        )

    application = Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)],
        exception_handlers={HTTPException: refused},
    )
    application.router.redirect_slashes = False
    return application


def _error(status: int, code: str, message: str, *, close: bool = False) -> Response:
    headers = {"Connection": "close"} if close else None
    return JSONResponse({"error": code, "message": message}, status, headers)
