"""What a URL of ours names: servers, a database, credentials and options."""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import Field

from prefactor_core.transport import BrokerOptions, TransportError, split_options

Kind = Literal["server", "cluster", "sentinel"]

_KINDS: Final[dict[str, Kind]] = {
    "redis": "server",
    "rediss": "server",
    "redis+cluster": "cluster",
    "redis+sentinel": "sentinel",
}
SCHEMES: Final = frozenset(_KINDS)
_DEFAULT_PORTS: Final[dict[Kind, int]] = {"server": 6379, "cluster": 6379, "sentinel": 26379}


class RedisOptions(BrokerOptions):
    """What a Redis URL may say beside what every broker's URL may say.

    Attributes:
        lease: Seconds for which a worker owns a partition without renewing it. When a worker dies, its
            partitions rest for that long.
        replicas: Replicas that must have a batch before it counts as published. With 0 a failover can lose
            what was just published.
    """

    lease: Annotated[float, Field(ge=1, le=3_600, allow_inf_nan=False)] = 15.0
    replicas: Annotated[int, Field(ge=0, le=100)] = 0


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Access:
    """How to get in at a server; shows neither user nor password."""

    user: str | None = field(default=None, repr=False)
    """Name of an ACL user."""
    password: str | None = field(default=None, repr=False)
    """The user's, or without one the server's."""
    database: int = 0
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names."""

    kind: Kind
    addresses: tuple[Address, ...]
    """One server, nodes of a cluster to ask first, or sentinels."""
    access: Access
    """To the servers that hold data."""
    service: str
    """The name by which sentinels know the master."""
    name: str
    """The URL without user and password."""
    options: RedisOptions


def read_target(url: str) -> Target:
    """Read a URL.

    Raises:
        TransportError: It is wrong. The message names the part, and repeats no value: one of them may be
            a password.
    """
    try:
        plain, options = split_options(url, RedisOptions)
        parts = urlsplit(plain)
    except ValueError:
        raise TransportError("transport_url: is no URL") from None
    kind = _KINDS[parts.scheme]
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    addresses = tuple(_read_address(host, kind) for host in hosts.split(","))
    if kind == "server" and len(addresses) > 1:
        raise TransportError("transport_url: several hosts need redis+cluster:// or redis+sentinel://")
    service, database = _read_path(parts.path, kind)
    access = Access(
        user=unquote(user) or None,
        password=unquote(password) or None,
        database=database,
        tls=parts.scheme == "rediss",
    )
    if access.user is not None and access.password is None:
        raise TransportError(
            "transport_url: names a user without a password (redis://:password@host has no user)"
        )
    where = ",".join(map(str, addresses))
    path = "/".join(part for part in (service, str(database) if database else "") if part)
    name = f"{parts.scheme}://{where}{'/' + path if path else ''}?prefix={options.prefix}"
    return Target(kind, addresses, access, service, name, options)


def _read_address(text: str, kind: Kind) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise TransportError("transport_url: a host or port is wrong; expected host:port") from None
    if not host or parts.path or port == 0:
        raise TransportError("transport_url: a host is missing; expected host:port")
    return Address(host, port or _DEFAULT_PORTS[kind])


def _read_path(path: str, kind: Kind) -> tuple[str, int]:
    """Return the sentinels' service, if they are some, and the database."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    service = ""
    if kind == "sentinel":
        if not parts:
            raise TransportError(
                "transport_url: the service is missing; expected redis+sentinel://hosts/service"
            )
        service = unquote(parts.pop(0))
    if kind == "cluster" and parts:
        raise TransportError("transport_url: a cluster has no databases; expected nothing after the hosts")
    if len(parts) > 1:
        raise TransportError("transport_url: has too many parts after the hosts")
    database = parts[0] if parts else "0"
    if not (database.isascii() and database.isdecimal() and len(database) <= 6):
        raise TransportError("transport_url: the database is not a number; expected /0")
    return service, int(database)
