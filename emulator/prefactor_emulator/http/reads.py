"""The routes by which instances and spans are read, and those of the token and of ids."""

from fastapi import APIRouter, Response

from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.callers import AccountCall, Caller
from prefactor_emulator.http.errors import refusals, success
from prefactor_emulator.http.lists import Offset, PageSize, page_of
from prefactor_emulator.http.paths import API_PREFIX
from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject
from prefactor_emulator.replies import Instance, Nothing, Page, Pfids, Span, Success
from prefactor_emulator.requests import GeneratePfids, Pfid, Timestamp
from prefactor_emulator.rules.call import account_id
from prefactor_emulator.rules.details import instance_details, span_details
from prefactor_emulator.rules.instances import find_instance
from prefactor_emulator.storage.records import InstanceRecord, SpanRecord

router = APIRouter(prefix=API_PREFIX, route_class=JsonRoute, responses=refusals(404))


@router.get("/ping", response_model=Success[Nothing])
async def ping(_caller: Caller) -> Response:
    """Check the token."""
    return success({})


@router.post("/pfid/generate", response_model=Success[Pfids], responses=refusals(400, 413))
async def generate_pfids(body: GeneratePfids, caller: Caller) -> Response:
    """Make new ids of the account."""
    return success({"pfids": [new_id(account_id(caller.account)) for _ in range(body.count)]})


@router.get("/agent_instance/{id}", response_model=Success[Instance])
async def show_instance(id: str, call: AccountCall) -> Response:
    """Show an instance."""
    return success(instance_details(call.store, find_instance(call, id)))


@router.get("/agent_instance", response_model=Page[Instance])
async def list_instances(
    call: AccountCall,
    agent_id: Pfid | None = None,
    start_time: Timestamp | None = None,
    end_time: Timestamp | None = None,
    offset: Offset = 0,
    page_size: PageSize = 25,
) -> Response:
    """List the account's instances, the newest first; times are those of their registration."""
    conditions = {
        "account = ?": call.account,
        "agent_id = ?": agent_id,
        "inserted_at >= ?": start_time,
        "inserted_at < ?": end_time,
    }
    return page_of(
        call.store,
        InstanceRecord,
        conditions,
        lambda instance: instance_details(call.store, instance),
        offset,
        page_size,
        ("-seq", "inserted_at"),
    )


@router.get("/agent_spans", response_model=Page[Span])
async def list_spans(
    call: AccountCall,
    agent_instance_id: Pfid | None = None,
    start_time: Timestamp | None = None,
    end_time: Timestamp | None = None,
    *,
    include_summaries: bool = False,
    offset: Offset = 0,
    page_size: PageSize = 25,
) -> Response:
    """List the account's spans, in the order in which they came; times are those of their starts."""
    conditions = {
        "instance_id IN (SELECT id FROM instances WHERE account = ?)": call.account,
        "instance_id = ?": agent_instance_id,
        "started_at >= ?": start_time,
        "started_at < ?": end_time,
    }
    hidden = {} if include_summaries else {"summary": None}

    def details(span: SpanRecord) -> JsonObject:
        return span_details(span, find_instance(call, span.instance_id)) | hidden

    return page_of(call.store, SpanRecord, conditions, details, offset, page_size, ("seq", "inserted_at"))
