"""The application: the API, the emulator's own routes and pages, and what stands around them."""

from collections.abc import Iterable

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from prefactor_emulator.faults import routes
from prefactor_emulator.faults.middleware import FaultMiddleware
from prefactor_emulator.http import agents, control, reads, writes
from prefactor_emulator.http.accounts import Accounts
from prefactor_emulator.http.callers import Services
from prefactor_emulator.http.errors import answer_errors
from prefactor_emulator.http.origin import OriginGuard
from prefactor_emulator.http.paths import API_PREFIX, MAX_BODY_BYTES
from prefactor_emulator.pages.routes import page_router
from prefactor_emulator.requests import MAX_ITEMS
from prefactor_emulator.rules.execution import Execution
from prefactor_emulator.storage.database import Database
from prefactor_emulator.storage.inspection import Inspection
from prefactor_emulator.storage.store import Store

_INTRODUCTION = f"""\
Writes are idempotent by `idempotency_key`, which may stand inside `details`: the same key with the same body
is answered with the first reply and without effect, the same key with another body is refused. Only successes
are remembered.

A bulk request carries out its items in order, each for itself, up to the first error. It has at most
{MAX_ITEMS} items and, as every body, {MAX_BODY_BYTES} bytes.

Unknown fields are dropped, and optional ones may be null. What does not fit the registered schemas is taken
and flagged, unless the emulator is told to refuse it. While it is told to misbehave, it may answer anything.
"""


class Emulator:
    """The emulator as an ASGI application.

    Args:
        database: Where everything is kept.
        accounts: Who may use the API. By default, everybody with any token.
        dedup: Whether a repeat under a known key is without effect.
        strict_schemas: Whether what does not fit the registered schemas is refused, and not only flagged.
        strict_termination: Whether a terminated instance takes no new spans.
        hosts: Further names by which the emulator may be asked; see `OriginGuard`.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts | None = None,
        *,
        dedup: bool = True,
        strict_schemas: bool = False,
        strict_termination: bool = False,
        hosts: Iterable[str] = (),
    ) -> None:
        store = Store(database)
        inspection = Inspection(database)
        # The pages of documentation that FastAPI offers come from other hosts.
        self.api = FastAPI(
            title="Prefactor API, as emulated",
            version="1",
            description=_INTRODUCTION,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self.faults = FaultMiddleware(self.api, store)
        execution = Execution(
            store, dedup=dedup, strict_schemas=strict_schemas, strict_termination=strict_termination
        )
        self._services = Services(accounts or Accounts(), store, execution, inspection)
        self.api.state.services = self._services
        self.api.state.faults = self.faults
        answer_errors(self.api)
        for part in (writes, reads, agents, control, routes):
            self.api.include_router(part.router)
        self.api.include_router(page_router(inspection))
        self._guarded = OriginGuard(self.faults, hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["path"].startswith(API_PREFIX):
            self._services.requests += 1
        await self._guarded(scope, receive, send)
