"""Connections to one server, the commands and scripts that run over them, and what is answered.

The driver repeats commands silently unless told otherwise, and a repeated publication adds twice: here
nothing is ever repeated but a script that the server does not know, which it has not run.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias, TypeVar, Union, cast

from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from prefactor_core.transport import BrokerError
from prefactor_redis.errors import DRIVER_ERRORS, mapped, meaning, why_not_connected
from prefactor_redis.scripts import Script
from prefactor_redis.target import Access, Address

T = TypeVar("T")
Word: TypeAlias = bytes | str | int
"""A part of a command."""
Reply: TypeAlias = Union[bytes, int, "list[Reply]", None]
"""What a server answers."""
ScriptCall: TypeAlias = tuple[Sequence[bytes], Sequence[Word]]
"""The keys and the arguments of a script."""

BEGINNING: Final = b"0-0"
"""Below the id of every entry of a stream; ids are ``milliseconds-sequence``."""

_READ_BYTES: Final = 256 * 1024
_CLOSING_SECONDS: Final = 2.0


class Wire:
    """One connection, lent out. Commands that have to share a connection share this."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def call(self, *command: Word) -> Reply:
        """Send one command and return its reply."""
        (reply,) = await self.exchange([command])
        return _reply(reply)

    async def exchange(self, commands: Sequence[Sequence[Word]]) -> list[Reply | ResponseError]:
        """Send commands together and return the reply to each; one that is refused stops no other."""
        connection = self._connection
        await connection.send_packed_command(connection.pack_commands(commands))
        replies: list[Reply | ResponseError] = []
        for _ in commands:
            try:
                replies.append(cast("Reply", await connection.read_response()))
            except ResponseError as error:
                replies.append(error)
        return replies

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Word]) -> Reply:
        """Run a script, which the server learns if it does not know it (any more)."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.call("EVAL", script.text, len(keys), *keys, *args)


class Link:
    """A few connections to one server, made when they are needed.

    Args:
        address: The server.
        access: How to get in.
        size: How many connections at most; a caller that finds none free waits.
        patience: Seconds for one use of a connection, waiting for it included.
        on_failure: Called after everything that goes wrong.
    """

    def __init__(
        self,
        address: Address,
        access: Access,
        *,
        size: int,
        patience: float,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.address = address
        self._patience = patience
        self._on_failure = on_failure
        self._tls = access.tls
        self.name = f"Redis at {'rediss://' if access.tls else ''}{address}"
        """What messages call the server."""
        self._closed = False
        self._pool = BlockingConnectionPool(
            max_connections=size,
            timeout=patience,
            connection_class=SSLConnection if access.tls else Connection,
            host=address.host,
            port=address.port,
            db=access.database,
            username=access.user,
            password=access.password,
            # Every use has its own limit of time. The driver's would send inside ``asyncio.wait_for``, which
            # on Python 3.11 swallows a cancellation that comes as the sending ends.
            socket_timeout=None,
            socket_connect_timeout=patience,
            socket_read_size=_READ_BYTES,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,  # a connection from the pool is looked at, and nothing is sent for it
            protocol=2,
        )

    async def call(self, *command: Word) -> Reply:
        """Send one command and return its reply."""
        async with self.wire() as wire:
            return await wire.call(*command)

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Word] = ()) -> Reply:
        """Run a script and return its reply."""
        async with self.wire() as wire:
            return await wire.run(script, keys, args)

    async def run_each(self, script: Script, calls: Sequence[ScriptCall]) -> list[Reply]:
        """Run a script once for each call, sent together, and return the replies."""
        commands = [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls]
        async with self.wire() as wire:
            replies = await wire.exchange(commands)
            return [
                await wire.run(script, *call) if isinstance(reply, NoScriptError) else _reply(reply)
                for call, reply in zip(calls, replies, strict=True)
            ]

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """Lend a connection."""
        if self._closed:
            raise BrokerError(f"{self.name}: its connections were closed")
        connected = False

        def explain(error: BaseException) -> str:
            return meaning(error) if connected else why_not_connected(error, tls=self._tls)

        try:
            with mapped(self.name, explain):
                async with asyncio.timeout(self._patience):
                    connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
                    connected = True
                    async with self._lent(connection):
                        yield Wire(connection)
        except BrokerError:
            self._on_failure()
            raise

    def apart(self) -> AbstractConnection:
        """Return a new connection that is none of the few and not yet made; the caller disconnects it."""
        return cast("AbstractConnection", self._pool.make_connection())  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        """Close all connections; those in use fail."""
        self._closed = True
        with suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self._pool.aclose()

    @asynccontextmanager
    async def _lent(self, connection: AbstractConnection) -> AsyncIterator[None]:
        try:
            yield
        except ResponseError:
            raise  # a whole reply: the connection is as good as before
        except BaseException:
            # A reply may be on its way that nobody waits for any more: the next command would get it.
            await connection.disconnect(nowait=True)
            raise
        finally:
            if self._closed:
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)


def _reply(reply: Reply | ResponseError) -> Reply:
    if isinstance(reply, ResponseError):
        raise reply
    return reply


def integer(reply: Reply) -> int:
    """Return a reply that is a whole number."""
    return _is(int, reply)


def data(reply: Reply) -> bytes:
    """Return a reply that is a string."""
    return _is(bytes, reply)


def maybe_data(reply: Reply) -> bytes | None:
    """Return a reply that is a string or nothing."""
    return None if reply is None else data(reply)


def text(reply: Reply) -> str:
    """Return a reply that is a string, as text."""
    return data(reply).decode("utf-8", "replace")


def items(reply: Reply) -> list[Reply]:
    """Return a reply that is a list."""
    return _is(list, reply)


def entries(reply: Reply, field: bytes) -> list[tuple[bytes, bytes]]:
    """Return the entries of a stream: the id of each, and what its field holds.

    One without that field is not of ours; all of it is returned then, so that it can be shown.
    """
    found: list[tuple[bytes, bytes]] = []
    for entry in items(reply):
        number, fields = items(entry)
        # An entry that was deleted meanwhile may be listed without its fields.
        words = [data(word) for word in items(fields)] if fields is not None else []
        value = words[1] if len(words) == 2 and words[0] == field else b" ".join(words)
        found.append((data(number), value))
    return found


def order(stream_id: bytes) -> tuple[int, int]:
    """Return what ids of entries are compared by."""
    milliseconds, _, sequence = stream_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _is(kind: type[T], reply: Reply) -> T:
    if not isinstance(reply, kind):
        raise BrokerError(f"Redis answered {type(reply).__name__} where {kind.__name__} was expected")
    return reply
