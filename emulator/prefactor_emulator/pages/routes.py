"""The routes of the pages for people."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from typing_extensions import override

from prefactor_emulator.model import Status
from prefactor_emulator.pages.render import render
from prefactor_emulator.pages.views import INSTANCES_SHOWN, instances_page, run_page
from prefactor_emulator.storage.inspection import Inspection

_Handler: TypeAlias = Callable[[Request], Coroutine[None, None, Response]]

_MOST: Final = 2**62
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_router(inspection: Inspection) -> APIRouter:
    """Build the pages. Whoever has the present state of one is told so instead of being sent it again."""
    router = APIRouter(route_class=_unless_known(inspection), include_in_schema=False)

    @router.get("/")
    async def index(
        q: str = "", status: str = "", before: Annotated[int | None, Query(ge=0, le=_MOST)] = None
    ) -> Response:
        if status not in {"", *Status}:
            return _missing()
        words = q.strip()
        if words and (span := inspection.span(words)) is not None:
            return RedirectResponse(f"/instances/{span['agent_instance_id']}?span={words}#s-{words}", 303)
        found = inspection.instances(INSTANCES_SHOWN + 1, before, status, words)
        for instance in found:
            inspection.count_spans(instance)
            await asyncio.sleep(0)  # operations get their turn
        counts = inspection.instance_counts(words)
        return HTMLResponse(instances_page(found, counts, words, status, before))

    # What is long is laid out in a thread: operations do not wait for it.

    @router.get("/instances/{instance_id}")
    async def run(
        instance_id: str,
        q: str = "",
        first: Annotated[int, Query(alias="from", ge=0, le=_MOST)] = 0,
        span: str = "",
    ) -> Response:
        found = inspection.run(instance_id)
        if found is None:
            return _missing()
        lines = await inspection.lines(instance_id)
        return HTMLResponse(await asyncio.to_thread(run_page, found, lines, q.strip(), first, span))

    @router.get("/spans/{span_id}")
    async def span(span_id: str) -> Response:
        found = inspection.span(span_id)
        if found is None:
            return _missing()
        return HTMLResponse(await asyncio.to_thread(render, "span.html", span=found))

    for asset in (Path(__file__).parent / "assets").iterdir():
        _add_asset(router, asset)
    return router


def _unless_known(inspection: Inspection) -> type[APIRoute]:
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

    return UnlessKnown


def _add_asset(router: APIRouter, asset: Path) -> None:
    content = asset.read_bytes()

    @router.get(f"/assets/{asset.name}")
    async def send() -> Response:
        return Response(content, media_type=_TYPES[asset.suffix])


def _missing() -> Response:
    return HTMLResponse(render("missing.html"), 404)
