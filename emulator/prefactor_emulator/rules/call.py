"""What every rule is given, and what it returns."""

from dataclasses import dataclass

from prefactor_emulator.ids import id_of
from prefactor_emulator.model import Identity, JsonObject
from prefactor_emulator.rules.schemas import SchemaLibrary
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
    """

    store: Store
    schemas: SchemaLibrary
    identity: Identity
    now: str
    strict_schemas: bool = False

    @property
    def account(self) -> str:
        """The name of the account."""
        return self.identity.account


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation changed, and what its reply says of it."""

    details: JsonObject
    instance_id: str
    span_id: str | None = None
    terminated: bool = False
    reason: str | None = None


def account_id(account: str) -> str:
    """Return the id of an account."""
    return id_of("account", account)
