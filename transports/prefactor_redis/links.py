"""The connections of one end: to whichever servers hold its keys."""

import asyncio
from collections.abc import Iterable

from prefactor_redis.link import Link
from prefactor_redis.servers import Servers
from prefactor_redis.target import Access, Address


class Links:
    """Makes and keeps links to servers.

    Args:
        servers: Finds the server of a key.
        access: How to get in.
        size: Connections to each server at most.
        patience: Seconds for one use of a connection.
    """

    def __init__(self, servers: Servers, access: Access, *, size: int, patience: float) -> None:
        self.servers = servers
        self._access = access
        self._size = size
        self._patience = patience
        self._links: dict[Address, Link] = {}

    async def of(self, key: bytes) -> Link:
        """Return the link to the server that has a key.

        Raises:
            BrokerError: It cannot be found out which that is.
        """
        return self.to(await self.servers.address(key))

    def to(self, address: Address) -> Link:
        """Return the link to a server."""
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = self._make(address, self._size, self._patience)
        return link

    async def single(self, key: bytes, patience: float) -> Link:
        """Return a new link with one connection to the server that has a key; the caller closes it.

        Raises:
            BrokerError: It cannot be found out which that is.
        """
        return self._make(await self.servers.address(key), 1, patience)

    async def grouped(self, keys: Iterable[tuple[int, bytes]]) -> dict[Link, list[int]]:
        """Return numbers by the link to the server that has their key.

        Raises:
            BrokerError: It cannot be found out which that is.
        """
        groups: dict[Link, list[int]] = {}
        for number, key in keys:
            groups.setdefault(await self.of(key), []).append(number)
        return groups

    async def close(self) -> None:
        """Close all connections but those of single links; a later use makes new ones."""
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links.values()))

    def _make(self, address: Address, size: int, patience: float) -> Link:
        return Link(address, self._access, size=size, patience=patience, on_failure=self.servers.doubt)
