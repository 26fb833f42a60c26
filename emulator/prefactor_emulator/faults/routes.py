"""The routes by which the emulator is told to misbehave."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response

from prefactor_emulator.faults.kinds import FaultSpecError
from prefactor_emulator.faults.middleware import FaultMiddleware
from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.errors import json_response
from prefactor_emulator.model import invalid
from prefactor_emulator.requests import Body


class _Faults(Body):
    faults: list[str]
    seed: int | None = None


async def _middleware(request: Request) -> FaultMiddleware:
    return cast("FaultMiddleware", request.app.state.faults)


_Running = Annotated[FaultMiddleware, Depends(_middleware)]

router = APIRouter(prefix="/emulator/faults", route_class=JsonRoute, include_in_schema=False)


@router.get("")
async def show(running: _Running) -> Response:
    """Show the active faults."""
    return json_response({"faults": running.specs, "hits": running.hits, "seed": running.seed})


@router.post("")
async def replace(running: _Running, body: _Faults) -> Response:
    """Replace the active faults."""
    try:
        running.activate(body.faults, body.seed or 0)
    except FaultSpecError as error:
        raise invalid({"faults": [str(error)]}) from None
    return await show(running)


@router.delete("")
async def clear(running: _Running) -> Response:
    """Behave again."""
    running.activate([], 0)
    return await show(running)
