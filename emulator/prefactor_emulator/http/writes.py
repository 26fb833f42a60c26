"""The routes by which agents write, one operation or many at a time."""

from fastapi import APIRouter, Response

from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.callers import Caller, Hooks, Id, Perform, Rules
from prefactor_emulator.http.errors import json_response, refusals
from prefactor_emulator.http.paths import API_PREFIX
from prefactor_emulator.model import OperationType
from prefactor_emulator.replies import BulkReply, Instance, SpanSuccess, Success
from prefactor_emulator.requests import (
    BulkRequest,
    CreateSpan,
    FinishInstance,
    FinishSpan,
    RecordQuality,
    RegisterInstance,
    StartInstance,
    TerminateInstance,
)

router = APIRouter(prefix=API_PREFIX, route_class=JsonRoute, responses=refusals(400, 404, 409, 413))


@router.post("/agent_instance/register", response_model=Success[Instance])
async def register_instance(body: RegisterInstance, perform: Perform) -> Response:
    """Register a pending instance."""
    return perform(OperationType.REGISTER_INSTANCE, body, None)


@router.post("/agent_instance/{id}/start", response_model=Success[Instance])
async def start_instance(id: Id, body: StartInstance, perform: Perform) -> Response:
    """Move a pending instance to active."""
    return perform(OperationType.START_INSTANCE, body, id)


@router.post("/agent_instance/{id}/finish", response_model=Success[Instance])
async def finish_instance(id: Id, body: FinishInstance, perform: Perform) -> Response:
    """Move an active instance to its end."""
    return perform(OperationType.FINISH_INSTANCE, body, id)


@router.post("/agent_instance/{id}/terminate", response_model=Success[Instance])
async def terminate_instance(id: Id, body: TerminateInstance, perform: Perform) -> Response:
    """Stop an active instance for good, and cancel its spans in flight."""
    return perform(OperationType.TERMINATE_INSTANCE, body, id)


@router.post("/agent_instance/{id}/record_quality", response_model=Success[Instance])
async def record_quality(id: Id, body: RecordQuality, perform: Perform) -> Response:
    """Set a quality, or remove it with a payload of null. Not with a deployment's token."""
    return perform(OperationType.RECORD_QUALITY, body, id)


@router.post("/agent_spans", response_model=SpanSuccess)
async def create_span(body: CreateSpan, perform: Perform) -> Response:
    """Create a span, in flight or over already."""
    return perform(OperationType.CREATE_SPAN, body, None)


@router.post("/agent_spans/{id}/finish", response_model=SpanSuccess)
async def finish_span(id: Id, body: FinishSpan, perform: Perform) -> Response:
    """Move a span to its end, with its result."""
    return perform(OperationType.FINISH_SPAN, body, id)


@router.post("/bulk", response_model=BulkReply)
async def bulk(body: BulkRequest, caller: Caller, rules: Rules, hooks: Hooks) -> Response:
    """Carry out many writes in order, up to the first that is refused."""
    return json_response(rules.bulk(caller, body.items, hooks))
