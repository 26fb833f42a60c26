"""What a RabbitMQ URL may say, and the hosts in it."""

from dataclasses import dataclass, field
from typing import Annotated, Final, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import Field, ValidationError
from pydantic_core import MultiHostUrl

from prefactor_core.transport import BrokerOptions, TransportError, split_options

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


class RabbitOptions(BrokerOptions):
    """The options of ``amqp://`` and ``amqps://``.

    Attributes:
        heartbeat: Seconds of silence after which either side begins to take the other for dead; the broker
            gives a partition away after about twice that time. Below 3 it is for tests.
    """

    heartbeat: Annotated[int, Field(ge=1, le=15)] = 10


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is, and who connects. Its ``repr`` holds no credentials."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    """Host and port of each node, in the URL's order; an IPv6 address stands in brackets."""
    vhost: str
    userinfo: str = field(repr=False)
    """User and password as the URL has them, still encoded."""

    @classmethod
    def parse(cls, url: str) -> tuple[Self, RabbitOptions]:
        """Take a transport URL apart.

        Raises:
            TransportError: A part of it is wrong; the message names the part, and quotes nothing of it.
        """
        try:
            given = urlsplit(url)
        except ValueError:
            raise TransportError("transport_url: is no URL") from None
        if given.scheme not in _PORTS:
            raise TransportError("transport_url: the scheme of RabbitMQ is amqp or amqps")
        if given.fragment or "@" in given.path:
            # What a password holds unencoded ends up in other parts.
            raise TransportError("transport_url: write # as %23, / as %2F and @ as %40 in password and vhost")
        _, options = split_options(url, RabbitOptions)
        userinfo, _, hosts = given.netloc.rpartition("@")
        known = _hosts(hosts, _PORTS[given.scheme])
        return cls(given.scheme, known, _vhost(given.path), userinfo), options

    @property
    def label(self) -> str:
        """What logs call the broker."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}/{'' if self.vhost == '/' else quote(self.vhost, safe='')}"

    def url(self, host: tuple[str, int], heartbeat: int) -> str:
        """Return the driver's URL for one host; it holds the credentials."""
        user = f"{self.userinfo}@" if self.userinfo else ""
        vhost = quote(self.vhost, safe="")
        return f"{self.scheme}://{user}{host[0]}:{host[1]}/{vhost}?heartbeat={heartbeat}"


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    try:
        hosts = MultiHostUrl(f"amqp://{text}").hosts()
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]["msg"].rpartition(", ")[2]
        raise TransportError(f"transport_url: host or port: {problem}") from None
    if not text or any(host["port"] == 0 for host in hosts):
        raise TransportError("transport_url: expected a host, and a port from 1 to 65535")
    return tuple((host["host"] or "", host["port"] or default_port) for host in hosts)


def _vhost(path: str) -> str:
    name = path.removeprefix("/")
    if name in {"", "/"}:
        return "/"
    if "/" in name:
        raise TransportError("transport_url: vhost: a / in its name is written %2F")
    return unquote(name)
