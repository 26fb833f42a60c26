"""The routes by which agents write, one operation or many at a time."""

from fastapi import APIRouter, Response

from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.callers import Id, Writer
from prefactor_emulator.http.errors import refusals
from prefactor_emulator.http.paths import API_PREFIX
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
async def register_instance(body: RegisterInstance, write: Writer) -> Response:
    """Register a pending instance."""
    return write(body)


@router.post("/agent_instance/{id}/start", response_model=Success[Instance])
async def start_instance(id: Id, body: StartInstance, write: Writer) -> Response:
    """Move a pending instance to active."""
    return write(body, id)


@router.post("/agent_instance/{id}/finish", response_model=Success[Instance])
async def finish_instance(id: Id, body: FinishInstance, write: Writer) -> Response:
    """Move an active instance to its end."""
    return write(body, id)


@router.post("/agent_instance/{id}/terminate", response_model=Success[Instance])
async def terminate_instance(id: Id, body: TerminateInstance, write: Writer) -> Response:
    """Stop an active instance for good, and cancel its spans in flight."""
    return write(body, id)


@router.post("/agent_instance/{id}/record_quality", response_model=Success[Instance])
async def record_quality(id: Id, body: RecordQuality, write: Writer) -> Response:
    """Set a quality, or remove it with a payload of null. Not with a deployment's token."""
    return write(body, id)


@router.post("/agent_spans", response_model=SpanSuccess)
async def create_span(body: CreateSpan, write: Writer) -> Response:
    """Create a span, in flight or over already."""
    return write(body)


@router.post("/agent_spans/{id}/finish", response_model=SpanSuccess)
async def finish_span(id: Id, body: FinishSpan, write: Writer) -> Response:
    """Move a span to its end, with its result."""
    return write(body, id)


@router.post("/bulk", response_model=BulkReply)
async def bulk(body: BulkRequest, write: Writer) -> Response:
    """Carry out many writes in order, up to the first that is refused."""
    return write.bulk(body.items)
