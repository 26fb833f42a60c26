"""The routes by which agents themselves are managed."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from prefactor_emulator.http.bodies import JsonRoute
from prefactor_emulator.http.callers import AccountCall, Id
from prefactor_emulator.http.errors import json_response, refusals, success
from prefactor_emulator.http.lists import Offset, PageSize, page_of
from prefactor_emulator.http.paths import API_PREFIX
from prefactor_emulator.model import invalid, not_found
from prefactor_emulator.replies import Agent, Page, Success
from prefactor_emulator.requests import CreateAgent, Pfid, Text, UpdateAgent, Write
from prefactor_emulator.rules.agents import (
    create_agent,
    delete_agent,
    find_agent,
    retire_agent,
    update_agent,
)
from prefactor_emulator.rules.details import agent_details
from prefactor_emulator.rules.execution import manage
from prefactor_emulator.storage.records import AgentRecord

router = APIRouter(prefix=f"{API_PREFIX}/agent", route_class=JsonRoute, responses=refusals(404))
_WRITE = refusals(400, 409, 413)


@router.post("", response_model=Success[Agent], responses=_WRITE)
async def create(body: CreateAgent, call: AccountCall) -> Response:
    """Create an agent."""
    return json_response(manage(call, "create", body, lambda: create_agent(call, body.details)))


@router.get("", response_model=Page[Agent])
async def list_agents(
    call: AccountCall,
    risk_profile_id: str | None = None,
    team_id: str | None = None,
    owner_person_id: str | None = None,
    sorting: Literal["name", "-name", "id", "-id"] = "name",
    offset: Offset = 0,
    page_size: PageSize = 25,
) -> Response:
    """List the account's agents, without counts of their instances."""
    conditions = {
        "account = ?": call.account,
        "risk_profile_id = ?": risk_profile_id,
        "team_id = ?": team_id,
        "owner_person_id = ?": owner_person_id,
    }
    return page_of(
        call.store,
        AgentRecord,
        conditions,
        lambda agent: agent_details(call.store, agent, counted=False),
        offset,
        page_size,
        (sorting, sorting.removeprefix("-")),
    )


@router.get("/show", response_model=Success[Agent])
async def show_by(
    call: AccountCall,
    agent_id: Pfid | None = None,
    external_identifier: Text | None = None,
    environment_id: Pfid | None = None,
    *,
    include_counts: bool = False,
    include_risk_rollup: Annotated[
        bool, Query(description="Accepted, and of no effect: the emulator knows no risks.")
    ] = False,
) -> Response:
    """Show the agent that has an id or an external identifier."""
    del include_risk_rollup
    if (agent_id is None) == (external_identifier is None):
        raise invalid({"agent_id": ["give either this or external_identifier"]})
    column, value = ("id", agent_id) if agent_id else ("external_identifier", external_identifier)
    agent = call.store.find(AgentRecord, f"account = ? AND {column} = ?", call.account, value)
    if agent is None:
        raise not_found("such agent")
    return success(agent_details(call.store, agent, environment_id, counted=include_counts))


@router.get("/{id}", response_model=Success[Agent])
async def show(id: str, call: AccountCall) -> Response:
    """Show an agent."""
    return success(agent_details(call.store, find_agent(call, id)))


@router.put("/{id}", response_model=Success[Agent], responses=_WRITE)
async def update(id: Id, body: UpdateAgent, call: AccountCall) -> Response:
    """Change what is named of an agent."""
    change = manage(call, f"update {id}", body, lambda: update_agent(call, id, body.details))
    return json_response(change)


@router.delete("/{id}", response_model=Success[Agent], responses=_WRITE)
async def delete(id: Id, call: AccountCall, body: Write | None = None) -> Response:
    """Forget an agent that has no instances."""
    return json_response(manage(call, f"delete {id}", body, lambda: delete_agent(call, id)))


@router.post("/{id}/retire", response_model=Success[Agent], responses=_WRITE)
async def retire(id: Id, call: AccountCall, body: Write | None = None) -> Response:
    """Retire an agent: it registers no more instances."""
    change = manage(call, f"retire {id}", body, lambda: retire_agent(call, id, retired=True))
    return json_response(change)


@router.post("/{id}/reinstate", response_model=Success[Agent], responses=_WRITE)
async def reinstate(id: Id, call: AccountCall, body: Write | None = None) -> Response:
    """Take back that an agent is retired."""
    change = manage(call, f"reinstate {id}", body, lambda: retire_agent(call, id, retired=False))
    return json_response(change)
