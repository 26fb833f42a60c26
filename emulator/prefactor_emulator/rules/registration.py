"""Registering an instance: its agent's version, its schemas' version, and the instance itself."""

from prefactor_emulator.fields import FLAG, OBJECT, PFID, TEXT, Complaints, Fields, one_of
from prefactor_emulator.ids import new_id
from prefactor_emulator.model import (
    Instance,
    JsonObject,
    NewInstance,
    Operation,
    Refusal,
    Status,
    Storage,
    VersionKind,
    digest_of,
)

PURPOSES = ("live", "smoke_test", "eval")

# Assumed: a version is what the agent is, not where one of its instances happens to run.
_NOT_CONTENT = {"runtime_environment"}


def register(storage: Storage, account: str, operation: Operation, now: str) -> Instance:
    """Register a pending instance.

    Raises:
        Refusal: A field is wrong, the id is taken, or a known version would change.
    """
    complaints = Complaints()
    fields = Fields(operation.fields, complaints)
    _check_agent_version(fields.inside(VersionKind.AGENT))
    names = _check_schema_version(fields.inside(VersionKind.SCHEMA))
    agent_id = fields.optional("agent_id", PFID)
    fields.optional("environment_id", PFID)
    fields.optional("external_identifier", TEXT)
    fields.optional("purpose", one_of(PURPOSES))
    fields.optional("update_current_version", FLAG)
    chosen = fields.optional("id", PFID)
    complaints.refuse_if_any()

    instance_id = chosen or new_id(agent_id)
    if storage.instance_taken(instance_id):
        raise Refusal(409, "conflict", f"an instance with id {instance_id} exists already")
    versions = {
        kind: _version(storage, account, agent_id or "", kind, fields.required(kind, OBJECT))
        for kind in VersionKind
    }
    storage.add_schema_names(versions[VersionKind.SCHEMA], names)
    kept = {name: value for name, value in operation.fields.items() if name != VersionKind.SCHEMA}
    storage.add_instance(
        NewInstance(
            id=instance_id,
            account=account,
            agent_version=versions[VersionKind.AGENT],
            schema_version=versions[VersionKind.SCHEMA],
            registration=kept,
            registered_at=now,
        )
    )
    return Instance(instance_id, Status.PENDING, versions[VersionKind.SCHEMA], now, None, None, None)


def _check_agent_version(version: Fields) -> None:
    version.required("name", TEXT)
    version.required("external_identifier", TEXT)
    version.optional("runtime_environment", OBJECT)


def _check_schema_version(version: Fields) -> frozenset[str]:
    """Check the schemas and return the names under which spans may be created."""
    version.required("external_identifier", TEXT)
    names: set[str] = set()
    for category in ("span_schemas", "span_result_schemas"):
        schemas = version.optional(category, OBJECT) or {}
        names.update(schemas)
        for name, schema in schemas.items():
            if not isinstance(schema, dict):
                version.complain(f"{category}.{name}", OBJECT.expected)
    for span_type in version.each("span_type_schemas"):
        names.add(span_type.required("name", TEXT))
        span_type.required("params_schema", OBJECT)
        span_type.optional("result_schema", OBJECT)
    for quality in version.each("quality_schemas"):
        quality.required("name", TEXT)
        quality.required("schema", OBJECT)
    return frozenset(names)


def _version(storage: Storage, account: str, agent: str, kind: VersionKind, content: JsonObject) -> int:
    """Find or keep a version: once registered under an agent, its content never changes."""
    digest = _digest(content)
    identifier = str(content["external_identifier"])
    known = storage.version(account, agent, kind, identifier)
    if known is None:
        return storage.add_version(account, agent, kind, content, digest)
    number, known_digest = known
    if known_digest != digest:
        raise Refusal(
            422,
            "version_mismatch",
            f"{kind} {identifier!r} is registered already with different content; "
            "versions never change, so give changed content a new external_identifier",
            {f"{kind}.external_identifier": ["is registered with different content"]},
        )
    return number


def _digest(content: JsonObject) -> bytes:
    compared = {name: value for name, value in content.items() if name not in _NOT_CONTENT}
    return digest_of(compared)
