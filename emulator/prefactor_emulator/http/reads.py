"""The routes by which instances and spans are read, and those of the token and of ids."""

from fastapi import APIRouter

from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.callers import Caller, Id, Reading
from prefactor_emulator.http.errors import refusals
from prefactor_emulator.http.lists import Chosen, Offset, PageSize
from prefactor_emulator.http.paths import API_PREFIX
from prefactor_emulator.ids import new_id
from prefactor_emulator.replies import Instance, Nothing, Page, Pfids, Sorting, Span, Success
from prefactor_emulator.requests import GeneratePfids, Pfid, Timestamp
from prefactor_emulator.rules.call import account_id
from prefactor_emulator.rules.details import instance_details, span_details
from prefactor_emulator.rules.instances import find_instance
from prefactor_emulator.storage.records import InstanceRecord, SpanRecord

router = APIRouter(prefix=API_PREFIX, route_class=JsonRoute, responses=refusals(404))


@router.get("/ping")
async def ping(_caller: Caller) -> Success[Nothing]:
    """Check the token."""
    return Success(status="success", details=Nothing())


@router.post("/pfid/generate", responses=refusals(400, 413))
async def generate_pfids(body: GeneratePfids, caller: Caller) -> Success[Pfids]:
    """Make new ids of the account."""
    pfids = [new_id(account_id(caller.account)) for _ in range(body.count)]
    return Success(status="success", details=Pfids(pfids=pfids))


@router.get("/agent_instance/{id}")
async def show_instance(id: Id, call: Reading) -> Success[Instance]:
    """Show an instance."""
    return Success(status="success", details=instance_details(call.store, find_instance(call, id)))


@router.get("/agent_instance")
async def list_instances(
    call: Reading,
    agent_id: Pfid | None = None,
    start_time: Timestamp | None = None,
    end_time: Timestamp | None = None,
    offset: Offset = 0,
    page_size: PageSize = 25,
) -> Page[Instance]:
    """List the account's instances, the newest first; times are those of their registration."""
    chosen = Chosen(call.store, InstanceRecord, "account = ?", call.account)
    chosen.narrow("agent_id = ?", agent_id)
    chosen.narrow("inserted_at >= ?", start_time)
    chosen.narrow("inserted_at < ?", end_time)
    return Page(
        summaries=[instance_details(call.store, each) for each in chosen.page("seq DESC", offset, page_size)],
        pagination=chosen.pagination(offset, page_size),
        sorting=Sorting(field="inserted_at", direction="desc"),
    )


@router.get("/agent_spans")
async def list_spans(
    call: Reading,
    agent_instance_id: Pfid | None = None,
    start_time: Timestamp | None = None,
    end_time: Timestamp | None = None,
    *,
    include_summaries: bool = False,
    offset: Offset = 0,
    page_size: PageSize = 25,
) -> Page[Span]:
    """List the account's spans, in the order in which they came; times are those of their starts."""
    own = "instance_id IN (SELECT id FROM instances WHERE account = ?)"
    chosen = Chosen(call.store, SpanRecord, own, call.account)
    chosen.narrow("instance_id = ?", agent_instance_id)
    chosen.narrow("started_at >= ?", start_time)
    chosen.narrow("started_at < ?", end_time)
    found = [
        span_details(span, find_instance(call, span.instance_id))
        for span in chosen.page("seq", offset, page_size)
    ]
    if not include_summaries:
        found = [span.model_copy(update={"summary": None}) for span in found]
    return Page(
        summaries=found,
        pagination=chosen.pagination(offset, page_size),
        sorting=Sorting(field="inserted_at", direction="asc"),
    )
