"""The routes of the pages for people."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated, Final, ParamSpec, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from typing_extensions import override

from prefactor_emulator.model import Status
from prefactor_emulator.pages.views import (
    INSTANCES_SHOWN,
    address_in_run,
    instances_page,
    missing_page,
    run_page,
    span_page,
)
from prefactor_emulator.storage.inspection import Inspection, SpanLine

_P = ParamSpec("_P")
_Handler: TypeAlias = Callable[[Request], Coroutine[None, None, Response]]

_MOST: Final = 2**62
_PIECE: Final = 1000
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class _Pages:
    """What the routes do.

    Args:
        inspection: What they show.
    """

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    async def index(
        self, q: str = "", status: str = "", before: Annotated[int | None, Query(ge=0, le=_MOST)] = None
    ) -> Response:
        if status not in {"", *Status}:
            return _missing()
        words = q.strip()
        if words and (span := self._inspection.span(words)) is not None:
            return RedirectResponse(address_in_run(span), 303)
        found = self._inspection.instances(INSTANCES_SHOWN + 1, before, status, words)
        counts = self._inspection.instance_counts(words)
        return await _page(instances_page, found, counts, words, status, before)

    async def run(
        self,
        instance_id: str,
        q: str = "",
        first: Annotated[int, Query(alias="from", ge=0, le=_MOST)] = 0,
        span: str = "",
    ) -> Response:
        found = self._inspection.run(instance_id)
        if found is None:
            return _missing()
        found["counts"] = self._inspection.span_counts(instance_id)
        lines = await self._lines(instance_id)
        return await _page(run_page, found, lines, q.strip(), first, span)

    async def span(self, span_id: str) -> Response:
        found = self._inspection.span(span_id)
        return _missing() if found is None else await _page(span_page, found)

    async def _lines(self, instance_id: str) -> list[SpanLine]:
        """Read the spans of a run in pieces, between which operations get their turn."""
        numbers = self._inspection.span_numbers(instance_id)
        lines: list[SpanLine] = []
        for start in range(0, len(numbers), _PIECE):
            lines += self._inspection.lines(numbers[start : start + _PIECE])
            await asyncio.sleep(0)
        return lines


def page_router(inspection: Inspection) -> APIRouter:
    """Build the pages. Whoever has the present state of one is told so instead of being sent it again."""

    class UnlessKnown(APIRoute):
        @override
        def get_route_handler(self) -> _Handler:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                tag = f'"{inspection.version()}"'
                known = request.headers.get("if-none-match") == tag
                response = Response(status_code=304) if known else await handler(request)
                response.headers.update({"ETag": tag, **_HEADERS})
                return response

            return handle

    pages = _Pages(inspection)
    router = APIRouter(route_class=UnlessKnown, include_in_schema=False)
    router.add_api_route("/", pages.index)
    router.add_api_route("/instances/{instance_id}", pages.run)
    router.add_api_route("/spans/{span_id}", pages.span)
    for asset in (Path(__file__).parent / "assets").iterdir():
        router.add_api_route(f"/assets/{asset.name}", _sending(asset.read_bytes(), _TYPES[asset.suffix]))
    return router


def _sending(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=media_type)

    return send


async def _page(lay_out: Callable[_P, str], *known: _P.args, **named: _P.kwargs) -> Response:
    """Lay a page out in a thread: a long one takes its time, and operations do not wait for it."""
    return HTMLResponse(await asyncio.to_thread(lay_out, *known, **named))


def _missing() -> Response:
    return HTMLResponse(missing_page(), 404)
