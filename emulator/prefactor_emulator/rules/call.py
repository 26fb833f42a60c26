"""What every rule is given, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass, field

from prefactor_core.identifiers import is_pfid
from prefactor_emulator.ids import id_of
from prefactor_emulator.model import Identity, JsonObject, invalid
from prefactor_emulator.rules.schemas import Assessment, SchemaLibrary, Schemas
from prefactor_emulator.storage.records import InstanceRecord
from prefactor_emulator.storage.store import Store


@dataclass(frozen=True, slots=True)
class Call:
    """The circumstances of one operation.

    Attributes:
        store: What is known so far.
        schemas: What agents have registered.
        identity: On whose behalf it comes.
        now: The present, for what the caller did not date.
        strict_schemas: Whether what does not fit the registered schemas is refused.
        strict_termination: Whether a terminated instance takes no new spans.
    """

    store: Store
    schemas: SchemaLibrary
    identity: Identity
    now: str
    strict_schemas: bool = False
    strict_termination: bool = False

    @property
    def account(self) -> str:
        """The name of the account."""
        return self.identity.account

    @property
    def scope(self) -> str:
        """The name of who has the keys: a deployment has its own."""
        deployment = self.identity.deployment
        return self.account if deployment is None else f"{self.account}/{deployment}"

    def environment_id(self, named: str | None = None) -> str:
        """Return the id of an environment: the token's, or one that is named; ids are taken as they are."""
        if named is not None and self.identity.deployment is None and is_pfid(named):
            return named
        name = self.identity.deployment or named or "default"
        return id_of("environment", self.account, name, relative=account_id(self.account))

    def assess(
        self, instance: InstanceRecord, field: str, assess: Callable[[Schemas], Assessment]
    ) -> Assessment:
        """Hold something against the schemas that an instance was registered with.

        Raises:
            Refusal: It does not fit, and schemas are strict.
        """
        found = assess(self.schemas.of(instance.schema_version_id))
        if found.flags and self.strict_schemas:
            raise invalid({field: found.flags})
        return found

    def instance(self, instance_id: str) -> InstanceRecord | None:
        """Find an instance that the token may touch: of the account, or only of the deployment."""
        found = self.store.instance(self.account, instance_id)
        apart = found and self.identity.deployment and found.environment_id != self.environment_id()
        return None if apart else found


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation changed, and what its reply says of it."""

    details: JsonObject
    instance_id: str
    span_id: str | None = None
    control: JsonObject = field(default_factory=dict)


def account_id(account: str) -> str:
    """Return the id of an account."""
    return id_of("account", account)
