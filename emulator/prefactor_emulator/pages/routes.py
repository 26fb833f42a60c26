"""The routes of the pages for people."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from prefactor_emulator.storage.inspection import Inspection
from prefactor_emulator.http.bodies import Handler, answering, query_number
from prefactor_emulator.pages.list_page import PAGE_SIZE, instances_page
from prefactor_emulator.model import Status
from prefactor_emulator.pages.run_page import missing_page, run_page, span_page

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_ASSETS = {"page.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}


def page_routes(inspection: Inspection) -> list[Route]:
    """Build the pages. Whoever has the present state of one is told so instead of being sent it again."""

    async def index(request: Request) -> Response:
        before = query_number(request, "before", default=2**62, most=2**62)
        status = request.query_params.get("status") or None
        if status is not None and status not in set(Status):
            return _missing()
        found = inspection.instances(PAGE_SIZE + 1, before, status)
        counts = inspection.instance_counts()
        return _page(instances_page(found, counts, status, first="before" not in request.query_params))

    async def run(request: Request) -> Response:
        first = query_number(request, "from", default=0, most=2**31)
        instance_id = request.path_params["id"]
        found = inspection.run(instance_id)
        if found is None:
            return _missing()
        return _page(run_page(found, inspection.spans(instance_id), first))

    async def span(request: Request) -> Response:
        found = inspection.span(request.path_params["id"])
        return _missing() if found is None else _page(span_page(found))

    def unless_known(handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            tag = f'"{inspection.version()}"'
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers={"ETag": tag, **_HEADERS})
            response = await handler(request)
            response.headers["ETag"] = tag
            return response

        return answering(handle)

    return [
        Route("/", unless_known(index), methods=["GET"]),
        Route("/instances/{id}", unless_known(run), methods=["GET"]),
        Route("/spans/{id}", unless_known(span), methods=["GET"]),
        *(_asset(name, media_type) for name, media_type in _ASSETS.items()),
    ]


def _asset(name: str, media_type: str) -> Route:
    content = (Path(__file__).parent / "assets" / name).read_bytes()

    async def send(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(f"/assets/{name}", answering(send), methods=["GET"])


def _page(content: str) -> Response:
    return HTMLResponse(content, headers=_HEADERS)


def _missing() -> Response:
    return HTMLResponse(missing_page(), 404, headers=_HEADERS)
