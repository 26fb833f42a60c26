"""Which server holds a key now: a single one, the master behind sentinels, or a node of a cluster.

These differ only in the server that a command goes to.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from typing import Final, TypeVar

from redis.crc import key_slot
from redis.exceptions import AuthenticationError

from prefactor_core.transport import BrokerError
from prefactor_redis.link import Link, Reply, Word, data, integer, items, text
from prefactor_redis.scripts import Script
from prefactor_redis.target import Access, Address, Target

logger = logging.getLogger("prefactor_redis")
T = TypeVar("T")

_ASKING_SECONDS: Final = 2.0
"""At most for one sentinel or node that is asked who is where: there are others."""


class Servers(ABC):
    """Finds the server of a key."""

    @abstractmethod
    async def all(self) -> list[Address]:
        """Return all servers that hold data, without replicas."""

    async def address(self, key: bytes) -> Address:  # noqa: ARG002 -- it has all of them
        """Return where the key is: at the only server, where there are no others."""
        return (await self.all())[0]

    def doubt(self) -> None:  # noqa: B027 -- there may be no other
        """Ask again before the next use: a server failed, or said that it is not the right one."""


class _OneServer(Servers):
    """A server at a fixed address."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def all(self) -> list[Address]:
        return [self._address]


class _Discovered(Servers):
    """Servers that are found by asking others, one after the other."""

    def __init__(self, asked: Iterable[Address], patience: float) -> None:
        self._asked = deque(dict.fromkeys(asked))
        self._patience = patience
        self._known = False
        self._lock = asyncio.Lock()

    def doubt(self) -> None:
        self._known = False

    async def _make_known(self) -> None:
        async with self._lock:
            if not self._known:
                await self._discover()
                self._known = True

    async def _discover(self) -> None:
        last: BrokerError | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                for _ in range(len(self._asked)):
                    address = self._asked[0]
                    # Next time another is asked first: this one may hang, or not know better.
                    self._asked.rotate(-1)
                    try:
                        return await self._ask(address)
                    except BrokerError as error:
                        last = error
                        logger.debug("%s", error)
        raise BrokerError(f"nobody of {len(self._asked)} knows where the data is; last answer: {last}")

    @abstractmethod
    async def _ask(self, address: Address) -> None:
        """Ask one, and take what it says."""


class _Sentinels(_Discovered):
    """The master that sentinels name."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.addresses, target.options.timeout)
        self._service = target.service
        self._access = target.access
        self._masters: list[Address] = []

    async def all(self) -> list[Address]:
        await self._make_known()
        return self._masters

    async def _ask(self, address: Address) -> None:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        try:
            reply = await _asked(address, Access(), question)
        except BrokerError as error:
            if not isinstance(error.__cause__, AuthenticationError):
                raise
            # Sentinels mostly ask for no password, and refuse one that they have no use for.
            reply = await _asked(address, Access(self._access.user, self._access.password), question)
        if reply is None:
            raise BrokerError(f"the sentinel at {address} knows no master by the name in the URL")
        host, port = items(reply)
        self._masters = [Address(text(host), int(data(port)))]


class _ClusterNodes(_Discovered):
    """The nodes of a cluster."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.addresses, target.options.timeout)
        self._seeds = target.addresses
        self._access = target.access
        self._ranges: list[tuple[int, int, Address]] = []

    async def address(self, key: bytes) -> Address:
        await self._make_known()
        slot = key_slot(key)
        for first, last, address in self._ranges:
            if first <= slot <= last:
                return address
        self.doubt()
        raise BrokerError(f"no node of the cluster serves slot {slot}")

    async def all(self) -> list[Address]:
        await self._make_known()
        return list(dict.fromkeys(address for _, _, address in self._ranges))

    async def _ask(self, address: Address) -> None:
        ranges: list[tuple[int, int, Address]] = []
        others: list[Address] = []
        for entry in items(await _asked(address, self._access, ("CLUSTER", "SLOTS"))):
            first, last, *nodes = items(entry)
            addresses = [_node_address(node, address) for node in nodes]
            ranges.append((integer(first), integer(last), addresses[0]))
            others += addresses
        if not ranges:
            raise BrokerError(f"the node at {address} knows of no slots")
        self._ranges = ranges
        # Nodes come and go: whom the cluster names is asked first, then whom the URL names.
        self._asked = deque(dict.fromkeys([*others, *self._seeds]))


def servers_of(target: Target) -> Servers:
    """Return what finds the servers that a URL names."""
    if target.kind == "sentinel":
        return _Sentinels(target)
    if target.kind == "cluster":
        return _ClusterNodes(target)
    return _OneServer(target.addresses[0])


class Links:
    """The connections of one end: links to whichever servers hold its keys, each of ``size`` connections."""

    def __init__(self, servers: Servers, access: Access, *, size: int, patience: float) -> None:
        self.servers = servers
        self._access = access
        self._size = size
        self._patience = patience
        self._links: dict[Address, Link] = {}

    async def of(self, key: bytes) -> Link:
        """Return the link to the server that has a key."""
        return self.to(await self.servers.address(key))

    async def call(self, name: str, key: bytes, *args: Word) -> Reply:
        """Send a command to the server that has its key, and return its reply."""
        link = await self.of(key)
        return await link.call(name, key, *args)

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Word] = ()) -> Reply:
        """Run a script at the server that has its keys, and return its reply."""
        link = await self.of(keys[0])
        return await link.run(script, keys, args)

    def to(self, address: Address) -> Link:
        """Return the link to a server."""
        if address not in self._links:
            self._links[address] = Link(
                address, self._access, size=self._size, patience=self._patience, on_failure=self.servers.doubt
            )
        return self._links[address]

    def single(self, patience: float) -> "Links":
        """Return links of one connection each, apart from these; the caller closes them."""
        return Links(self.servers, self._access, size=1, patience=patience)

    async def grouped(self, whole: Iterable[T], key: Callable[[T], bytes]) -> dict[Link, list[T]]:
        """Return what is given by the link to the server that has its key."""
        groups: dict[Link, list[T]] = {}
        for one in whole:
            groups.setdefault(await self.of(key(one)), []).append(one)
        return groups

    async def aclose(self) -> None:
        """Close all connections; a later use makes new ones."""
        links, self._links = self._links, {}
        await asyncio.gather(*(link.aclose() for link in links.values()))


def links_to(target: Target, size: int) -> Links:
    """Return connections to what a URL names, at most so many to each server."""
    return Links(servers_of(target), target.access, size=size, patience=target.options.timeout)


def _node_address(node: Reply, asked: Address) -> Address:
    host, port, *_ = items(node)
    # A node that does not know its own address means: the one by which you reached me.
    known = text(host) if host else ""
    return Address(known if known not in {"", "?"} else asked.host, integer(port))


async def _asked(address: Address, access: Access, question: tuple[Word, ...]) -> Reply:
    async with aclosing(Link(address, access, size=1, patience=_ASKING_SECONDS)) as link:
        return await link.call(*question)
