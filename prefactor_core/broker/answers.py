"""Answers: how workers tell a replay command what became of each operation that it replayed.

An answer is a JSON object with the names of ``Answer``; ``reason`` is that of the new dead letter, or null.
It holds no payload and no reply.

Answers are a courtesy: no disposal waits for them, and one that cannot be sent is dropped.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pydantic_core import from_json, to_json

from prefactor_core.broker.driver import ConsumingEnd, DeadLetterEnd
from prefactor_core.exceptions import BrokerError
from prefactor_core.operations import ANSWER_TO, OPERATION_ID, Operation
from prefactor_core.outage import Outage
from prefactor_core.texts import LONGEST_ID
from prefactor_core.waiters import in_time

logger = logging.getLogger("prefactor_core.broker")

ReplayOutcome: TypeAlias = Literal["delivered", "kept"]

_LONGEST_REASON: Final = 300
_MOST: Final = 10_000
"""Answers that can wait to be sent; further ones are dropped."""
_AT_ONCE: Final = 200
_SECONDS: Final = 5.0
"""What the broker has to take some."""
_PAUSE: Final = 1.0
"""Seconds after which a broker that failed is asked for answers again."""
_ENDING: Final = 2.0
"""Seconds that the last answers have before the connections end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one replayed operation: ``delivered``, or ``kept``, that is dead-lettered again."""

    id: str
    outcome: ReplayOutcome
    reason: str | None = None


def encode_answer(answer: Answer) -> bytes:
    """Return the answer as bytes; a long reason is cut."""
    reason = None if answer.reason is None else answer.reason[:_LONGEST_REASON]
    return to_json({"id": answer.id, "outcome": answer.outcome, "reason": reason})


def decode_answer(data: bytes) -> Answer | None:
    """Return the answer that ``data`` holds, ``None`` if it holds none: anybody may have written it."""
    try:
        fields = from_json(data)
    except ValueError:
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
        return None
    if fields.get("outcome") == "delivered":
        return Answer(fields["id"], "delivered")
    if fields.get("outcome") == "kept":
        reason = fields.get("reason")
        text = reason if isinstance(reason, str) else "no reason given"
        return Answer(fields["id"], "kept", text[:_LONGEST_REASON])
    return None


class AnswerSender:
    """A worker's side: sends answers in a task of its own."""

    def __init__(self, end: ConsumingEnd) -> None:
        self._end = end
        self._outage = Outage(logger, "telling the outcomes of replayed operations", "fails")
        self._unsent: deque[tuple[str, bytes]] = deque()
        self._task: asyncio.Task[None] | None = None

    def send(self, outcome: ReplayOutcome, disposed: Iterable[tuple[Operation, str | None]]) -> None:
        """Have answers sent for those operations that a command replayed. Never waits and never fails.

        Each comes with the reason why it was kept, if it was.
        """
        for operation, reason in disposed:
            address, id_ = operation.metadata.get(ANSWER_TO), operation.metadata.get(OPERATION_ID)
            if not isinstance(address, str) or not isinstance(id_, str) or len(id_) > LONGEST_ID:
                continue
            if len(self._unsent) < _MOST:
                self._unsent.append((address, encode_answer(Answer(id_, outcome, reason))))
        if self._unsent and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._send(), name="prefactor-answers")

    async def close(self) -> None:
        """Send the last answers, if that takes a moment only, and end."""
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=_ENDING)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._outage.close()

    async def _send(self) -> None:
        while self._unsent:
            address = self._unsent[0][0]
            batch: list[bytes] = []
            while self._unsent and self._unsent[0][0] == address and len(batch) < _AT_ONCE:
                batch.append(self._unsent.popleft()[1])
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._end.answer(address, batch)
            except (BrokerError, TimeoutError) as error:
                logger.debug("%d outcomes of replayed operations were not told: %s", len(batch), error)
            except Exception as error:  # noqa: BLE001 -- logged, and the next ones are sent
                # The driver is somebody else's code.
                self._outage.failed(self, error)
            else:
                self._outage.worked(self)


class AnswerCollector:
    """A replay command's side: collects the answers about the ``expected`` ids, which may grow."""

    def __init__(self, end: DeadLetterEnd, expected: Collection[str]) -> None:
        self._end = end
        self._expected = expected
        self._found: dict[str, Answer] = {}
        self._missing: set[str] = set()
        self._ended = False
        self._news = asyncio.Event()

    @asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        """Collect answers during an ``async with``. A broker that fails meanwhile is asked again."""
        collector = asyncio.get_running_loop().create_task(self._collect(), name="prefactor-outcomes")
        try:
            yield
        finally:
            self._ended = True
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)

    async def wait(self, seconds: float) -> None:
        """Wait until every expected answer is there, or none has come for so many seconds."""
        self._missing = {*self._expected} - self._found.keys()
        while self._missing:
            self._news.clear()
            if not await in_time(self._news.wait(), seconds):
                return

    @property
    def delivered(self) -> Sequence[str]:
        """The ids of those that were delivered."""
        return tuple(answer.id for answer in self._answers if answer.outcome == "delivered")

    @property
    def kept(self) -> Mapping[str, Sequence[str]]:
        """Those that were dead-lettered again: the ids by reason, the most frequent reason first."""
        found: dict[str, list[str]] = {}
        for answer in self._answers:
            if answer.outcome == "kept":
                found.setdefault(answer.reason or "", []).append(answer.id)
        return dict(sorted(found.items(), key=lambda one: -len(one[1])))

    async def _collect(self) -> None:
        # A driver's library may swallow a cancellation; this ends all the same.
        while not self._ended:
            try:
                arrived = await self._end.answers()
            except BrokerError as error:
                logger.debug("outcomes of replayed operations could not be read: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            except Exception:
                # The driver is somebody else's code; what was replayed is told all the same.
                logger.exception("outcomes of replayed operations could not be read")
                return
            for answer in filter(None, map(decode_answer, arrived)):
                self._found[answer.id] = answer
                self._missing.discard(answer.id)
                self._news.set()

    @property
    def _answers(self) -> list[Answer]:
        return [answer for id_, answer in self._found.items() if id_ in self._expected]
