"""Registering an instance: its agent's version, its schemas' version, and the instance itself."""

from prefactor_emulator.ids import id_of, new_id
from prefactor_emulator.model import Refusal, Status, VersionKind, conflict, digest_of
from prefactor_emulator.requests import AgentSchemaVersion, AgentVersion, RegisterInstance
from prefactor_emulator.rules.agents import registered_agent
from prefactor_emulator.rules.call import Call, Done, account_id
from prefactor_emulator.rules.details import instance_details
from prefactor_emulator.storage.records import InstanceRecord, VersionRecord

# Assumed: a version is what the agent is, not where one of its instances happens to run.
_NOT_CONTENT = "runtime_environment"


def register(call: Call, _target: str, body: RegisterInstance) -> Done:
    """Register a pending instance.

    Raises:
        Refusal: The id or the external identifier is taken, or a known version would change.
    """
    store = call.store
    if body.id is not None and store.count(InstanceRecord, "id = ?", body.id):
        raise conflict(f"an instance with id {body.id} exists already")
    agent = registered_agent(call, body)
    instance_id, identifier = body.id or new_id(agent.id), body.external_identifier
    where = "agent_id = ? AND external_identifier = ?"
    if store.count(InstanceRecord, where, agent.id, identifier):
        raise conflict("an instance of this agent with this external_identifier exists already")
    version = _version(call, agent.id, VersionKind.AGENT, body.agent_version)
    schemas = _version(call, agent.id, VersionKind.SCHEMA, body.agent_schema_version or AgentSchemaVersion())
    environment = call.environment_id(body.environment_id)
    instance = InstanceRecord(
        id=instance_id,
        account=call.account,
        agent_id=agent.id,
        environment_id=environment,
        agent_deployment_id=id_of(agent.id, environment, relative=account_id(call.account)),
        agent_version_id=version.id,
        schema_version_id=schemas.id,
        status=Status.PENDING,
        external_identifier=identifier,
        purpose=body.purpose or "live",
        inserted_at=call.now,
        updated_at=call.now,
    )
    for record in (agent, version, schemas):
        store.add(record)  # those that are known stay as they are
    rest = body.model_dump(exclude_none=True, exclude={"idempotency_key", "type", VersionKind.SCHEMA})
    store.add(instance, registration=rest)
    return Done(instance_details(store, instance), instance_id)


def _version(
    call: Call, agent_id: str, kind: VersionKind, version: AgentVersion | AgentSchemaVersion
) -> VersionRecord:
    """Find or make a version: once registered under an agent, its content never changes."""
    content = version.model_dump(by_alias=True, exclude_none=True)
    digest = digest_of({name: value for name, value in content.items() if name != _NOT_CONTENT})
    identifier = str(content.get("external_identifier", digest.hex()))
    where = "agent_id = ? AND kind = ? AND identifier = ?"
    known = call.store.find(VersionRecord, where, agent_id, kind, identifier)
    if known is None:
        return VersionRecord(new_id(agent_id), agent_id, kind, identifier, digest, content)
    if known.digest != digest:
        raise Refusal(
            422,
            "version_mismatch",
            f"{kind} {identifier!r} is registered already with different content; "
            "versions never change, so give changed content a new external_identifier",
            {f"{kind}.external_identifier": ["is registered with different content"]},
        )
    return known
