"""The published HTTP client creates, finds, changes and removes agents."""

import pytest
from prefactor_http import PrefactorApiError, PrefactorHttpClient, PrefactorNotFoundError
from prefactor_http.models.agent import Agent, AgentForCreate, AgentForUpdate, AgentSummary
from prefactor_http.models.base import ListResponse

from prefactor_core.identifiers import is_pfid
from tests.peers.calling import Keys, ids, is_now, registered, said, started


async def created(client: PrefactorHttpClient, *names: str) -> list[Agent]:
    return [await client.agents.create(AgentForCreate(name=name)) for name in names]


async def page(client: PrefactorHttpClient, params: dict[str, str | int] | None = None) -> ListResponse:
    """Return a page of agents with what the client's own call leaves out."""
    reply = await client.request("GET", "/api/v1/agent", params=params)
    return ListResponse[AgentSummary].model_validate(reply)


async def test_an_agent_has_what_it_was_created_with(client: PrefactorHttpClient, key: Keys) -> None:
    agent_id, owner, risk_profile, team = await ids(client, 4)
    details = AgentForCreate(
        id=agent_id,
        name="Bookkeeper",
        description="Keeps the books",
        external_identifier="books",
        owner_person_id=owner,
        risk_profile_id=risk_profile,
        team_id=team,
    )
    agent = await client.agents.create(details, idempotency_key=key())
    assert details.model_dump().items() <= agent.model_dump().items()
    assert agent.status != "retired"
    assert is_now(agent.inserted_at)
    assert is_now(agent.updated_at)
    assert await client.agents.get(agent_id) == agent


async def test_a_name_is_enough_for_an_agent(client: PrefactorHttpClient, key: Keys) -> None:
    agent = await client.agents.create(AgentForCreate(name="Bookkeeper"), idempotency_key=key())
    assert is_pfid(agent.id)
    assert agent.name == "Bookkeeper"
    assert agent.description is None
    assert agent.external_identifier is None


async def test_an_agent_is_created_once_under_a_key(client: PrefactorHttpClient) -> None:
    first = await client.agents.create(AgentForCreate(name="Bookkeeper"), idempotency_key="1")
    assert await client.agents.create(AgentForCreate(name="Bookkeeper"), idempotency_key="1") == first
    assert [agent.id for agent in await client.agents.list_agents()] == [first.id]


async def test_an_id_and_an_external_identifier_are_given_once(client: PrefactorHttpClient) -> None:
    agent = await client.agents.create(AgentForCreate(name="Bookkeeper", external_identifier="books"))
    for taken in ({"id": agent.id}, {"external_identifier": "books"}):
        with pytest.raises(PrefactorApiError) as refusal:
            await client.agents.create(AgentForCreate(name="Somebody else", **taken))
        assert said(refusal.value) == (409, "conflict")
    assert [found.name for found in await client.agents.list_agents()] == ["Bookkeeper"]


async def test_an_update_changes_what_it_names(client: PrefactorHttpClient, key: Keys) -> None:
    owner, risk_profile, team = await ids(client, 3)
    agent = await client.agents.create(
        AgentForCreate(name="Bookkeeper", description="Keeps the books", external_identifier="books")
    )
    renamed = await client.agents.update(agent.id, AgentForUpdate(name="Accountant"), idempotency_key=key())
    assert (renamed.name, renamed.description) == ("Accountant", "Keeps the books")
    assert renamed.external_identifier == "books"
    changes = AgentForUpdate(
        description="Keeps all books", owner_person_id=owner, risk_profile_id=risk_profile, team_id=team
    )
    changed = await client.agents.update(agent.id, changes, idempotency_key=key())
    assert changes.model_dump(exclude_none=True).items() <= changed.model_dump().items()
    assert changed.name == "Accountant"
    assert changed.inserted_at == agent.inserted_at
    assert changed.updated_at >= agent.updated_at
    assert await client.agents.update(agent.id, AgentForUpdate(), idempotency_key=key())
    assert (await client.agents.get(agent.id)).model_dump(exclude={"updated_at"}) == changed.model_dump(
        exclude={"updated_at"}
    )


async def test_an_agent_is_retired_and_reinstated(client: PrefactorHttpClient, key: Keys) -> None:
    (agent,) = await created(client, "Bookkeeper")
    assert agent.available_actions.retire
    assert not agent.available_actions.reinstate
    retired = await client.agents.retire(agent.id, idempotency_key=key())
    assert (retired.id, retired.status) == (agent.id, "retired")
    assert retired.available_actions.reinstate
    assert not retired.available_actions.retire
    assert (await client.agents.get(agent.id)).status == "retired"
    reinstated = await client.agents.reinstate(agent.id, idempotency_key=key())
    assert reinstated.status == agent.status
    assert reinstated.available_actions == agent.available_actions
    assert (await client.agents.get(agent.id)).status == agent.status


async def test_what_is_done_already_is_not_done_to_an_agent(client: PrefactorHttpClient) -> None:
    (agent,) = await created(client, "Bookkeeper")
    with pytest.raises(PrefactorApiError) as refusal:
        await client.agents.reinstate(agent.id)
    assert said(refusal.value) == (409, "invalid_action")
    await client.agents.retire(agent.id)
    with pytest.raises(PrefactorApiError) as refusal:
        await client.agents.retire(agent.id)
    assert said(refusal.value) == (409, "invalid_action")


async def test_a_deleted_agent_is_gone(client: PrefactorHttpClient, key: Keys) -> None:
    kept, deleted = await created(client, "Kept", "Deleted")
    assert deleted.available_actions.delete
    answer = await client.agents.delete(deleted.id, idempotency_key=key())
    assert (answer.id, answer.name) == (deleted.id, "Deleted")
    with pytest.raises(PrefactorNotFoundError) as refusal:
        await client.agents.get(deleted.id)
    assert said(refusal.value) == (404, "not_found")
    assert [agent.id for agent in await client.agents.list_agents()] == [kept.id]


async def test_an_agent_is_shown_by_either_identifier(client: PrefactorHttpClient) -> None:
    agent = await client.agents.create(AgentForCreate(name="Bookkeeper", external_identifier="books & more"))
    await created(client, "Somebody else")
    by_id = await client.agents.show(agent_id=agent.id)
    by_name = await client.agents.show(external_identifier="books & more", include_risk_rollup=True)
    assert by_id.id == by_name.id == agent.id
    assert by_name.external_identifier == "books & more"


async def test_an_agent_is_shown_with_the_counts_of_its_instances(client: PrefactorHttpClient) -> None:
    (agent,) = await created(client, "Bookkeeper")
    await registered(client, agent_id=agent.id)
    instances = [await started(client, agent_id=agent.id) for _ in range(4)]
    await started(client, agent_id="somebody else")
    for instance, status in zip(instances, ("complete", "failed", "cancelled"), strict=False):
        await client.agent_instances.finish(instance.id, status)
    shown = await client.agents.show(agent_id=agent.id, include_counts=True)
    counts = {"total": 5, "pending": 1, "active": 1, "complete": 1, "failed": 1, "cancelled": 1}
    assert shown.instance_counts.model_dump() == counts | {"terminated": 0, "finished": 3}
    of_environment = await client.agents.show(
        agent_id=agent.id, environment_id=instances[0].environment_id, include_counts=True
    )
    assert of_environment.instance_counts == shown.instance_counts


async def test_the_agent_of_an_instance_can_be_looked_up(client: PrefactorHttpClient) -> None:
    (agent,) = await created(client, "Bookkeeper")
    for name in (agent.id, "Bookkeeper"):
        assert (await registered(client, agent_id=name)).agent_id == agent.id
    other = await registered(client, agent_id="somebody new")
    assert other.agent_id != agent.id
    assert (await client.agents.get(other.agent_id)).name == "somebody new"


async def test_nobody_finds_an_agent_that_is_not_there(client: PrefactorHttpClient) -> None:
    (missing,) = await ids(client, 1)
    for call in (
        client.agents.get(missing),
        client.agents.show(agent_id=missing),
        client.agents.show(external_identifier="nobody"),
        client.agents.update(missing, AgentForUpdate(name="Somebody")),
        client.agents.retire(missing),
        client.agents.reinstate(missing),
        client.agents.delete(missing),
    ):
        with pytest.raises(PrefactorNotFoundError) as refusal:
            await call
        assert said(refusal.value) == (404, "not_found")


@pytest.mark.parametrize("filter_", ["risk_profile_id", "team_id", "owner_person_id"])
async def test_agents_are_listed_by_what_they_have(client: PrefactorHttpClient, filter_: str) -> None:
    one, another, nobodys = await ids(client, 3)
    names = {}
    for name, value in (("First", one), ("Second", one), ("Third", another), ("Fourth", None)):
        agent = await client.agents.create(AgentForCreate(name=name, **{filter_: value}))
        names[agent.id] = name
    for value, expected in ((one, {"First", "Second"}), (another, {"Third"}), (nobodys, set())):
        found = await client.agents.list_agents(**{filter_: value})
        assert {names[agent.id] for agent in found} == expected
    assert len(await client.agents.list_agents()) == len(names)


async def test_agents_are_listed_in_the_order_that_is_asked_for(client: PrefactorHttpClient) -> None:
    agents = await created(client, "Cook", "Archivist", "Bookkeeper")
    by_name = [agent.name for agent in await client.agents.list_agents(sorting="name")]
    assert by_name == ["Archivist", "Bookkeeper", "Cook"]
    assert [agent.name for agent in await client.agents.list_agents(sorting="-name")] == by_name[::-1]
    by_id = sorted(agent.id for agent in agents)
    assert [agent.id for agent in await client.agents.list_agents(sorting="id")] == by_id
    assert [agent.id for agent in await client.agents.list_agents(sorting="-id")] == by_id[::-1]


async def test_agents_are_listed_by_pages(client: PrefactorHttpClient) -> None:
    await created(client, *"ABCDE")
    pages = [
        await client.agents.list_agents(sorting="name", offset=offset, page_size=2)
        for offset in range(0, 7, 2)
    ]
    assert ["".join(agent.name for agent in found) for found in pages] == ["AB", "CD", "E", ""]
    assert len(await client.agents.list_agents(page_size=100)) == 5


async def test_a_page_says_where_it_is(client: PrefactorHttpClient) -> None:
    agents = await created(client, *"ABCDE")
    middle = await page(client, {"pagination[offset]": 2, "pagination[page_size]": 2, "sorting": "-name"})
    assert [agent.name for agent in middle.summaries] == ["C", "B"]
    assert middle.sorting.field == "name"
    place = middle.pagination
    assert (place.item_count, place.page_count) == (5, 3)
    assert (place.page_offset, place.page_size) == (2, 2)
    assert (place.previous_page_offset, place.next_page_offset) == (0, 4)
    assert place.item_end >= place.item_start
    first = await page(client, {"pagination[page_size]": 2, "sorting": "name"})
    assert first.sorting.direction != middle.sorting.direction
    assert (first.pagination.previous_page_offset, first.pagination.next_page_offset) == (None, 2)
    last = await page(client, {"pagination[offset]": 4, "pagination[page_size]": 2})
    assert (last.pagination.previous_page_offset, last.pagination.next_page_offset) == (2, None)
    assert len(last.summaries) == 1
    assert {agent.id for agent in (await page(client)).summaries} == {agent.id for agent in agents}
