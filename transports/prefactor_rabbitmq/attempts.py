"""The attempts at messages in isolation, recorded where a crash cannot reach.

The broker's own count of deliveries rises for everything that an owner holds when it crashes. It tells which
messages may have crashed their owners, not which one has. So those are handled one at a time, and each
partition has a log of the attempts at them: a queue with records that an attempt has begun, and records that
take one back, because its owner lets the message wait, releases the partition, or has lost its connection and
not crashed. Each attempt has a token, so that to record it twice, or take it back twice, changes nothing.

Records of settled messages mean nothing. They are swept once there are many, and go with the last message
that is in isolation.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from aiormq.abc import AbstractChannel, DeliveredMessage

from prefactor_core.transport import MAX_ATTEMPTS, BrokerError
from prefactor_rabbitmq.confirming import Outgoing
from prefactor_rabbitmq.inbox import Receipt
from prefactor_rabbitmq.link import Link, get_message
from prefactor_rabbitmq.names import Names
from prefactor_rabbitmq.publishing import Outlet
from prefactor_rabbitmq.topology import quorum

logger = logging.getLogger("prefactor_rabbitmq")

_EXPIRES: Final = 24 * 60 * 60 * 1000
"""Milliseconds after which the broker removes records that nobody has touched."""
_STALE: Final = 100
"""Records that are left to lie before they are swept."""
_MOST_PENDING: Final = 1_000
_FLUSH_SECONDS: Final = 2.0
_BEGUN: Final = "attempt"
_WITHDRAWN: Final = "withdrawn"
"""Headers with the token."""
_LOOKS: Final = 100
_PAUSE: Final = 0.01


class Withdrawals:
    """Attempts that this process has survived, until their logs say so. Kept by a consuming end; bounded."""

    def __init__(self, names: Names, outlet: Outlet) -> None:
        self._names = names
        self._outlet = outlet
        self._pending: dict[str, int] = {}  # tokens, with their partitions

    def __contains__(self, token: str) -> bool:
        return token in self._pending

    def add(self, partition: int, token: str) -> None:
        """Take an attempt back, as far as this process goes; ``flush`` tells others."""
        self._pending[token] = partition
        if len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]

    def drop(self, partition: int) -> None:
        """Forget those of a partition whose log is gone."""
        self._pending = {token: of for token, of in self._pending.items() if of != partition}

    async def flush(self) -> None:
        """Write what is pending to the logs; after an error it stays pending."""
        pending = dict(self._pending)
        if not pending:
            return
        # The log may be gone, with all that it said: then there is nothing to take back, and no error.
        await self._outlet.publish(
            [
                Outgoing("", self._names.attempts(partition), b"", {_WITHDRAWN: token}, mandatory=False)
                for token, partition in pending.items()
            ]
        )
        for token in pending:
            self._pending.pop(token, None)

    async def try_to_flush(self) -> None:
        """Write what is pending to the logs within a moment, or leave it pending."""
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self.flush()
        except (BrokerError, TimeoutError):
            logger.debug("%d attempts are not taken back yet", len(self._pending))


class Attempts:
    """The attempts of one ownership, and those that it finds."""

    def __init__(
        self, number: int, names: Names, link: Link, outlet: Outlet, withdrawals: Withdrawals
    ) -> None:
        self._number = number
        self._queue = names.attempts(number)
        self._link = link
        self._outlet = outlet
        self._withdrawals = withdrawals
        self._log: dict[str, set[str]] | None = None  # tokens by message, once they were looked for
        self._records = 0
        self._open: dict[str, str] = {}  # the tokens of what this owner handles, by message
        self._own: set[str] = set()  # all tokens that this owner recorded since the log was swept
        self._over = False

    async def begin(self, fingerprint: str) -> bool:
        """Record an attempt; return whether it is one of the first that stand.

        Without an end or a withdrawal in between, a second call is about the same attempt.
        """
        log = await self._look()
        token = self._open.get(fingerprint)
        if token is None:
            if self._records >= _STALE:
                log = await self._sweep(fingerprint)
            if self._over:
                raise BrokerError(f"partition {self._number} was lost")
            token = self._open[fingerprint] = secrets.token_hex(8)
            self._own.add(token)
        if token not in log.get(fingerprint, ()):
            await self._record(fingerprint, [token])
            self._records += 1
            log.setdefault(fingerprint, set()).add(token)
        if len(self._standing(log, fingerprint)) > MAX_ATTEMPTS:
            # An owner that survived an attempt may have said so only now.
            log = await self._read()
        return len(self._standing(log, fingerprint)) <= MAX_ATTEMPTS

    async def attempts(self, fingerprint: str) -> int:
        """Return how often a message was begun by owners that crashed."""
        return len(self._standing(await self._look(), fingerprint) - self._own)

    async def withdraw(self, fingerprint: str) -> None:
        """Take back this owner's attempt, if there is one; after an error the end will do it."""
        token = self._open.pop(fingerprint, None)
        if token is not None:
            self._withdrawals.add(self._number, token)
            self._own.discard(token)
            if self._log is not None:
                self._log.get(fingerprint, set()).discard(token)
            self._records += 1
            await self._withdrawals.flush()

    async def end(self, receipts: Iterable[Receipt], *, more: bool) -> None:
        """Note that messages are settled; remove the log when none in isolation is left. Else it expires."""
        isolated = False
        for receipt in receipts:
            self._open.pop(receipt.fingerprint, None)
            isolated |= receipt.may_be_poison
        if isolated and not more:
            with suppress(BrokerError):
                await self._link.delete(self._queue, "removing attempts")
                self._own.clear()
                self._withdrawals.drop(self._number)
            self._log = None

    async def withdraw_all(self) -> None:
        """Take back what is not at its end: the messages go back unharmed. What cannot be told is pending."""
        for token in self._open.values():
            self._withdrawals.add(self._number, token)
        if self._open:
            await self._withdrawals.try_to_flush()
        self._close()

    def abandon(self) -> None:
        """Take back everything, without the broker: whether it knows what was settled is not known."""
        for token in self._own:
            self._withdrawals.add(self._number, token)
        self._close()

    def _close(self) -> None:
        self._over = True
        self._open.clear()
        self._own.clear()

    def _standing(self, log: dict[str, set[str]], fingerprint: str) -> set[str]:
        return {token for token in log.get(fingerprint, ()) if token not in self._withdrawals}

    async def _look(self) -> dict[str, set[str]]:
        return await self._read() if self._log is None else self._log

    async def _read(self) -> dict[str, set[str]]:
        """Read the log; what is read goes back as the channel closes."""
        begun: dict[str, set[str]] = {}
        withdrawn: set[str] = set()
        records = 0
        async with self._link.brief_channel("reading attempts") as channel:
            await self._declare(channel)
            while (message := await get_message(channel, self._queue)) is not None:
                records += 1
                if token := _token(message, _WITHDRAWN):
                    withdrawn.add(token)
                elif token := _token(message, _BEGUN):
                    begun.setdefault(message.body.decode("ascii", "replace"), set()).add(token)
        self._log = {fingerprint: tokens - withdrawn for fingerprint, tokens in begun.items()}
        self._records = records
        return self._log

    async def _declare(self, channel: AbstractChannel) -> None:
        """Make the queue, or find it with everything back in it that somebody has read."""
        for _ in range(_LOOKS):
            declared = await channel.queue_declare(
                self._queue, durable=True, arguments=quorum(self._link, {"x-expires": _EXPIRES})
            )
            # A quorum queue counts among its consumers each that has a message and has not settled it.
            if not declared.consumer_count:
                return
            await asyncio.sleep(_PAUSE)

    async def _sweep(self, fingerprint: str) -> dict[str, set[str]]:
        """Keep nothing but what stands of one message. A crash in between forgets those, no more."""
        log = await self._read()
        standing = self._standing(log, fingerprint)
        async with self._link.brief_channel("sweeping attempts") as channel:
            await channel.queue_purge(self._queue)
        if standing:
            await self._record(fingerprint, sorted(standing))
        self._log = {fingerprint: standing}
        self._records = len(standing)
        self._own &= standing
        return self._log

    async def _record(self, fingerprint: str, tokens: list[str]) -> None:
        body = fingerprint.encode()
        try:
            await self._outlet.publish([Outgoing("", self._queue, body, {_BEGUN: one}) for one in tokens])
        except BrokerError:
            self._log = None  # the queue may have expired: it is declared again before it is read
            raise


def _token(message: DeliveredMessage, header: str) -> str | None:
    value = (message.header.properties.headers or {}).get(header)
    return value if isinstance(value, str) else None
