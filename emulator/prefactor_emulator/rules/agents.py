"""The rules of agents: made by hand, or by the first registration that names them."""

from prefactor_core.identifiers import is_pfid
from prefactor_emulator.ids import new_id
from prefactor_emulator.model import conflict, invalid_action, not_found
from prefactor_emulator.requests import AgentChanges, NewAgent, RegisterInstance
from prefactor_emulator.rules.call import Call, account_id
from prefactor_emulator.storage.records import AgentRecord, InstanceRecord


def create_agent(call: Call, new: NewAgent) -> AgentRecord:
    """Make an agent.

    Raises:
        Refusal: Its id or its external identifier is taken.
    """
    agent = _new_agent(call, new)
    where = "id = ? OR (account = ? AND external_identifier = ?)"
    if call.store.count(AgentRecord, where, agent.id, agent.account, agent.external_identifier):
        raise conflict("an agent with this id or external_identifier exists already")
    call.store.add(agent)
    return agent


def _new_agent(call: Call, new: NewAgent) -> AgentRecord:
    return AgentRecord(
        id=new.id or new_id(account_id(call.account)),
        account=call.account,
        inserted_at=call.now,
        updated_at=call.now,
        **new.model_dump(exclude={"id"}),
    )


def find_agent(call: Call, agent_id: str) -> AgentRecord:
    """Find an agent of this account.

    Raises:
        Refusal: There is none.
    """
    agent = call.store.find(AgentRecord, "id = ? AND account = ?", agent_id, call.account)
    if agent is None:
        raise not_found(f"agent {agent_id}")
    return agent


def update_agent(call: Call, agent_id: str, changes: AgentChanges) -> AgentRecord:
    """Change what is named of an agent; its external identifier never changes."""
    agent = find_agent(call, agent_id)
    if agent.retired:
        raise invalid_action("the agent is retired: reinstate it first")
    named = changes.model_dump(exclude_unset=True)
    if changes.name is None:
        named.pop("name", None)
    return call.store.update(agent, updated_at=call.now, **named)


def retire_agent(call: Call, agent_id: str, *, retired: bool) -> AgentRecord:
    """Retire an agent, or reinstate it."""
    agent = find_agent(call, agent_id)
    if bool(agent.retired) is retired:
        raise invalid_action(f"the agent is {'retired already' if retired else 'not retired'}")
    return call.store.update(agent, updated_at=call.now, retired=int(retired))


def delete_agent(call: Call, agent_id: str) -> AgentRecord:
    """Forget an agent. Assumed: only one that never ran can be deleted."""
    agent = find_agent(call, agent_id)
    if call.store.count(InstanceRecord, "agent_id = ?", agent_id):
        raise invalid_action("the agent has instances: retire it instead")
    call.store.remove(agent)
    return agent


def registered_agent(call: Call, body: RegisterInstance) -> AgentRecord:
    """Find whose instance is registered: by id, by name, or by the token's deployment.

    Returns:
        The agent. It may be one that is not kept yet.

    Raises:
        Refusal: The agent is retired, or is another account's.
    """
    version = body.agent_version
    named = call.identity.deployment or body.agent_id
    name = named or version.name or version.external_identifier or "agent"
    if named and call.identity.deployment is None and is_pfid(named):
        agent = call.store.find(AgentRecord, "id = ?", named)
        new = NewAgent(id=named, name=version.name or named)
    else:
        agent = call.store.find(AgentRecord, "account = ? AND name = ?", call.account, name)
        new = NewAgent(name=name)
    if agent is None:
        return _new_agent(call, new)
    if agent.account != call.account:
        raise not_found(f"agent {agent.id}")
    if agent.retired:
        raise invalid_action("the agent is retired: it registers no instances")
    return agent
