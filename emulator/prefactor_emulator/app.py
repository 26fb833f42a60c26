"""The application: the API, the emulator's own routes, and the faults around both."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from prefactor_emulator.http.accounts import Accounts
from prefactor_emulator.http.writes import api_routes
from prefactor_emulator.storage.database import Database
from prefactor_emulator.http.control import description_route, fault_routes, inspection_routes
from prefactor_emulator.http.paths import API_PREFIX
from prefactor_emulator.faults.kinds import FAULT_KINDS
from prefactor_emulator.faults.middleware import FaultMiddleware
from prefactor_emulator.storage.inspection import Inspection
from prefactor_emulator.http.bodies import on_http_exception
from prefactor_emulator.pages.routes import page_routes
from prefactor_emulator.storage.store import Store


class Emulator:
    """The emulator as an ASGI application.

    Args:
        database: Where everything is kept.
        accounts: Who may use the API. By default, everybody with any token.
        dedup: Whether a repeat under a known key is without effect.
    """

    def __init__(self, database: Database, accounts: Accounts | None = None, *, dedup: bool = True) -> None:
        store = Store(database)
        inspection = Inspection(database)
        routes = [
            *api_routes(store, accounts or Accounts(), dedup=dedup),
            description_route(),
            *page_routes(inspection),
            *inspection_routes(inspection, store, lambda: self.requests_served),
            *fault_routes(lambda: self.faults),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: on_http_exception})
        app.router.redirect_slashes = False
        self.faults = FaultMiddleware(app, store, FAULT_KINDS)
        self.requests_served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["path"].startswith(API_PREFIX):
            self.requests_served += 1
        await self.faults(scope, receive, send)
