"""Lanes: the order of each instance, the independence of all of them, and who is to blame.

A lane is the first-in-first-out line of the deliveries of one key. At most one batch of a lane is out at
a time. A batch takes the longest prefix that fits from each lane that is ready.

When a batch fails as a whole it is not known which of its items is to blame, so fewer travel together
before anything counts against an item: the same batch once more, then each lane alone, then the lane's
first item alone. Only there do failures count as attempts. A success widens the lane again.

Lanes that travel alone take one call each, so while others wait they get no more than half of the calls.
Lanes that are rejected while nothing succeeds are held (see ``credit``); they keep nobody else waiting.

No clock, no tasks: the executor brings the time, so that the rules run in simulated time.
"""

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Generic, TypeVar

from prefactor_core.execution.credit import Credit
from prefactor_core.execution.dependents import Dependents
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.outcome import (
    FOLLOWS,
    SUPERSEDED,
    Apart,
    Dead,
    Later,
    NotReached,
    Outcome,
    Retry,
    Settled,
    Superseded,
)
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.queue.base import DeadLetter, Delivery

logger = logging.getLogger("prefactor_core.queue")

T = TypeVar("T")

_NO_LIMIT: Final = 1 << 30
_SHARED_ATTEMPTS: Final = 2
"""Failures together with other lanes after which a lane travels alone."""
_COMPANIONS: Final = 16
"""Operations that travel with one that was answered by itself."""
_MOMENT: Final = 0.02
"""Seconds until what could not be handled is looked at again."""


@dataclass(slots=True, eq=False)
class _Lane(Generic[T]):
    key: object
    line: deque[Delivery[T]] = field(default_factory=deque)
    out: int = 0  # how many at the head of the line are with a handler
    failures: int = 0  # in a row; what the backoff grows with
    shared: int = 0  # of those, in batches with other lanes
    attempts: int = 0  # how often the head was sent on its own account; failures of it alone, and rejections
    blame: float = 0.0  # what the attempts weigh
    alone: bool = False
    out_alone: bool = False  # with a handler now, in a call of its own
    limit: int = _NO_LIMIT  # how long a prefix may be
    verdict: Dead | None = None  # over the head, where it is held since that is not believed


@dataclass(slots=True)
class Resolution(Generic[T]):
    """What the queue is to be told after a batch, and what the account is to count.

    ``overtaken`` of ``settled`` had had their effect before. ``superseded`` and ``dead`` include what follows
    such an operation; ``revoked`` is another process's by now. ``retried`` went back since something went
    wrong.
    """

    settled: list[Delivery[T]] = field(default_factory=list)
    dead: list[tuple[Delivery[T], DeadLetter[T]]] = field(default_factory=list)
    revoked: list[Delivery[T]] = field(default_factory=list)
    overtaken: list[Delivery[T]] = field(default_factory=list)
    superseded: list[Delivery[T]] = field(default_factory=list)
    retried: list[Delivery[T]] = field(default_factory=list)

    @property
    def finished(self) -> list[Delivery[T]]:
        """What the queue has to forget: whatever its outcome was, nobody wants more of it."""
        return [*self.settled, *self.superseded]

    @property
    def ended(self) -> list[Delivery[T]]:
        """What is not to be handled again, here or anywhere."""
        return [*self.finished, *(delivery for delivery, _ in self.dead)]


class Lanes(Generic[T]):
    """All lanes of one executor.

    ``key`` names an item's lane; ``None`` gives it one of its own. ``dependents`` knows what follows a dead
    letter. At most ``calls`` batches are out at a time. All times are monotonic seconds.
    """

    def __init__(
        self,
        retry: RetryPolicy,
        key: Callable[[T], str | None],
        dependents: Dependents | None = None,
        calls: int = 1,
    ) -> None:
        self._retry = retry
        self._key = key
        self._dependents = dependents
        self._lanes: dict[object, _Lane[T]] = {}
        self._most_alone = max(1, calls // 2)
        self._out_alone = 0
        self._alone_is_next = False
        self._ready: deque[_Lane[T]] = deque()
        self._ready_alone: deque[_Lane[T]] = deque()
        self._credit: Credit[_Lane[T]] = Credit()
        self._backing_off: list[tuple[float, int, _Lane[T]]] = []
        self._sequence = 0  # keeps the heap from comparing lanes
        self.prefetched = 0
        """Deliveries in all lanes, with a handler or not."""
        self.prefetched_bytes = 0
        """Bytes of those."""
        self.unsent: Resolution[T] = Resolution()
        """What ``take`` found that must not be sent: the caller disposes of it."""

    def add(self, delivery: Delivery[T]) -> None:
        """Put a delivery at the end of its lane."""
        key = delivery.lane = self._lane_key(delivery)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
            self._enqueue(lane)
        lane.line.append(delivery)
        self.prefetched += 1
        self.prefetched_bytes += delivery.size

    def revive(self, delivery: Delivery[T]) -> None:
        """Forget that a delivery was lost: it was refused as a dead letter, or has had its effect now."""
        if self._dependents:
            self._dependents.revive(delivery.item)

    def take(self, limits: BatchLimits, now: float) -> list[Delivery[T]]:
        """Return the next batch; empty if no lane is ready."""
        self._wake(now)
        alone_first = self._alone_is_next and self._may_go_alone
        batch = self._take_one_alone(limits, now) if alone_first else []
        if not batch:
            batch = self._take_company(limits, now)
            # Lanes that waited meanwhile come next.
            self._alone_is_next = bool(self._ready_alone)
            if not batch and not alone_first:
                batch = self._take_one_alone(limits, now)
        return batch

    @property
    def holding(self) -> str | None:
        """Why rejected lanes are held, if any were since the last success: the reason of the first one."""
        return self._credit.exhausted

    @property
    def all_held(self) -> bool:
        """Whether nothing is left but lanes that are held since everything is rejected."""
        return self._credit.general and 0 < len(self._lanes) == len(self._credit)

    def resolve(self, batch: Sequence[Delivery[T]], outcomes: Sequence[Outcome], now: float) -> Resolution[T]:
        """Take back a batch with an outcome for each of its deliveries, in the same order."""
        resolution: Resolution[T] = Resolution()
        groups = list(self._by_lane(batch, outcomes))
        if any(isinstance(outcome, Settled) for outcome in outcomes):
            self._free_held(resolution, now)
        # Lanes that were not reached go before those that were: one that ends requests early, over and
        # over, must not keep the others from being reached.
        groups.sort(key=lambda group: not isinstance(group[1][0], NotReached))
        for lane, its_outcomes in groups:
            self._resolve_lane(lane, its_outcomes, resolution, now, company=len(groups) > 1)
        return resolution

    def next_due(self) -> float | None:
        """Return when the next lane that backs off or is held is ready, in monotonic seconds."""
        due = self._backing_off[0][0] if self._backing_off else None
        retry = self._credit.next_retry
        return due if retry is None else retry if due is None else min(due, retry)

    def is_ready(self, now: float) -> bool:
        """Whether there may be something to take."""
        self._wake(now)
        return bool(self._ready or self._ready_alone)

    def empty_out(self) -> list[Delivery[T]]:
        """Remove and return everything, each lane in its order."""
        everything = [delivery for lane in self._lanes.values() for delivery in lane.line]
        self._lanes.clear()
        self._ready.clear()
        self._ready_alone.clear()
        self._credit.clear()
        self._backing_off.clear()
        self.prefetched = self.prefetched_bytes = self._out_alone = 0
        return everything

    # -- taking

    def _lane_key(self, delivery: Delivery[T]) -> object:
        try:
            key = self._key(delivery.item)
            hash(key)
        except Exception:  # the function, or the item, is the caller's own
            logger.exception("an item's lane cannot be told: it gets one of its own")
            key = None
        return delivery if key is None else key

    @property
    def _may_go_alone(self) -> bool:
        return bool(self._ready_alone) and (not self._ready or self._out_alone < self._most_alone)

    def _take_company(self, limits: BatchLimits, now: float) -> list[Delivery[T]]:
        # Long prefixes of few lanes, rather than a little of each: what one batch leaves alone, the next can
        # take while this one is under way. A lane that was served goes to the end.
        batch: list[Delivery[T]] = []
        room_bytes, lanes = limits.max_bytes, limits.max_lanes
        while lanes and self._ready and len(batch) < limits.max_items:
            if not self._clear_head(self._ready[0], self.unsent, now):
                self._ready.popleft()
                continue
            size = self._hand_out(self._ready[0], limits.max_items - len(batch), room_bytes, batch)
            if size == 0:
                break
            self._ready.popleft()
            room_bytes -= size
            lanes -= 1
        return batch

    def _take_one_alone(self, limits: BatchLimits, now: float) -> list[Delivery[T]]:
        batch: list[Delivery[T]] = []
        while self._may_go_alone and not batch:
            lane = self._ready_alone.popleft()
            if self._clear_head(lane, self.unsent, now):
                self._hand_out(lane, limits.max_items, limits.max_bytes, batch)
                lane.out_alone = True
                self._out_alone += 1
                self._alone_is_next = False
        return batch

    def _clear_head(self, lane: _Lane[T], resolution: Resolution[T], now: float) -> bool:
        """Take off a lane what must not be sent; whether something is left. Else the lane is held or gone."""
        while lane.line:
            delivery = lane.line[0]
            if delivery.revoked:
                # What was received later, and is ours again, stands behind it.
                resolution.revoked.append(self._pop(lane))
                self._absolve(lane)
                continue
            doom = self._doom_of(lane, delivery)
            if doom is None:
                return True
            if isinstance(doom, Superseded):
                self._supersede(lane, resolution)
                continue
            dead_letter, rejected_at = doom
            confirmed = rejected_at is None or rejected_at < self._credit.successes
            if not confirmed and not self._credit.spend(lane.key, now, dependent=True):
                self._credit.hold(lane, dead_letter.reason, now)
                return False
            resolution.dead.append(self._dead_letter(lane, dead_letter, rejected_at=rejected_at))
        del self._lanes[lane.key]
        return False

    def _enqueue(self, lane: _Lane[T]) -> None:
        (self._ready_alone if lane.alone else self._ready).append(lane)

    def _hand_out(self, lane: _Lane[T], room_items: int, room_bytes: int, batch: list[Delivery[T]]) -> int:
        """Move the lane's longest prefix that fits into ``batch``; return its bytes, 0 for none.

        An empty batch takes the first delivery whatever its size.
        """
        size = 0
        lossy = bool(self._dependents)
        count = min(room_items, lane.limit, len(lane.line))
        for position in range(count):
            delivery = lane.line[position]
            if (batch and size + delivery.size > room_bytes) or delivery.revoked:
                break
            if (lossy or delivery.dead_letter is not None) and self._doom_of(lane, delivery) is not None:
                break  # it stays behind, to be dead-lettered once it is at the head
            size += delivery.size
            batch.append(delivery)
            lane.out += 1
        return size

    def _wake(self, now: float) -> None:
        while self._backing_off and self._backing_off[0][0] <= now:
            self._enqueue(heapq.heappop(self._backing_off)[2])
        for lane in self._credit.retry(now, lambda lane: lane.line[0].revoked):
            self._enqueue(lane)

    # -- resolving

    def _by_lane(
        self, batch: Sequence[Delivery[T]], outcomes: Sequence[Outcome]
    ) -> Iterator[tuple[_Lane[T], Sequence[Outcome]]]:
        start = 0
        while start < len(batch):
            lane = self._lanes[batch[start].lane]
            yield lane, outcomes[start : start + lane.out]
            start += lane.out

    def _resolve_lane(
        self,
        lane: _Lane[T],
        outcomes: Sequence[Outcome],
        resolution: Resolution[T],
        now: float,
        *,
        company: bool,
    ) -> None:
        delay = 0.0
        lost = False
        sent, lane.out = lane.out, 0
        self._out_alone -= lane.out_alone
        lane.out_alone = False
        for done, outcome in enumerate(outcomes):
            if isinstance(outcome, Settled):
                self._settle(lane, outcome, resolution)
                continue
            if isinstance(outcome, Superseded):
                self._supersede(lane, resolution)
                lost = True
                continue
            if isinstance(outcome, Dead):
                if self._lose(lane, outcome, resolution, now):
                    lost = True
                    continue
                return
            if isinstance(outcome, Apart):
                resolution.retried.append(lane.line[0])
                lane.alone = True
                lane.limit = max(1, (sent - done) // 2)
            elif isinstance(outcome, Retry):
                resolution.retried += islice(lane.line, sent - done)
                delay = self._fail(lane, outcome, resolution, company=company, several=sent - done > 1)
            elif isinstance(outcome, Later):
                delay = _MOMENT
            break
        if lost and not self._clear_head(lane, resolution, now):
            return  # dependents of a lost operation spend credit before another lane is rejected
        self._line_up(lane, delay, now)

    def _line_up(self, lane: _Lane[T], delay: float, now: float) -> None:
        if not lane.line:
            del self._lanes[lane.key]
        elif delay > 0:
            self._sequence += 1
            heapq.heappush(self._backing_off, (now + delay, self._sequence, lane))
        else:
            self._enqueue(lane)

    def _lose(self, lane: _Lane[T], dead: Dead, resolution: Resolution[T], now: float) -> bool:
        """Dead-letter the head of a lane, unless that is not believed: then the lane is held."""
        lane.alone = True
        lane.attempts += dead.sent
        if dead.rejected and not self._credit.spend(lane.key, now):
            resolution.retried.append(lane.line[0])
            lane.verdict = dead
            self._credit.hold(lane, dead.reason, now)
            return False
        resolution.dead.append(self._dead_letter_sent(lane, dead))
        return True

    def _free_held(self, resolution: Resolution[T], now: float) -> None:
        """Let held lanes go on after a success; those whose rejection is believed by now without a retry."""
        freed, believed = self._credit.restore(now)
        for lane in freed:
            verdict, lane.verdict = lane.verdict, None
            if believed and verdict is not None and not lane.line[0].revoked:
                resolution.dead.append(self._dead_letter_sent(lane, replace(verdict, rejected=False)))
            if self._clear_head(lane, resolution, now):
                self._enqueue(lane)

    def _settle(self, lane: _Lane[T], outcome: Settled, resolution: Resolution[T]) -> None:
        delivery = self._pop(lane)
        self.revive(delivery)
        resolution.settled.append(delivery)
        if outcome.overtaken:
            resolution.overtaken.append(delivery)
        # The lane works: its prefixes grow again.
        self._absolve(lane)
        lane.alone = False
        if lane.limit < _NO_LIMIT:
            lane.limit *= 2

    def _supersede(self, lane: _Lane[T], resolution: Resolution[T]) -> None:
        delivery = self._pop(lane)
        if self._dependents is not None:
            self._dependents.supersede(delivery.item)
        resolution.superseded.append(delivery)
        self._absolve(lane)

    def _fail(
        self, lane: _Lane[T], outcome: Retry, resolution: Resolution[T], *, company: bool, several: bool
    ) -> float:
        """Hold a failure against the lane and return how long it backs off, in seconds."""
        lane.failures += 1
        if outcome.weight > 0 and company and not outcome.attempt:
            lane.shared += 1
            lane.alone = lane.alone or lane.shared >= _SHARED_ATTEMPTS
        elif outcome.weight > 0:
            lane.alone = True
            lane.limit = 1
            if outcome.attempt or not several:
                lane.attempts += 1
                lane.blame += outcome.weight
            if lane.blame > self._retry.max_retries + 1e-9:
                reason = f"failed after {_attempts(lane)} attempts: {outcome.reason}"
                resolution.dead.append(self._dead_letter_sent(lane, Dead(reason)))
                return 0.0
        elif outcome.attempt:
            lane.attempts += 1
            lane.alone = True  # it would cut short the requests of the others
            lane.limit = max(lane.limit, _COMPANIONS)  # what is behind it may tell more
        return self._retry.delay(lane.failures, outcome.retry_after)

    # -- dead-lettering

    def _pop(self, lane: _Lane[T]) -> Delivery[T]:
        delivery = lane.line.popleft()
        self.prefetched -= 1
        self.prefetched_bytes -= delivery.size
        return delivery

    def _dead_letter_sent(self, lane: _Lane[T], dead: Dead) -> tuple[Delivery[T], DeadLetter[T]]:
        dead_letter = DeadLetter(lane.line[0].item, dead.reason, attempts=_attempts(lane), reply=dead.reply)
        rejected_at = self._credit.successes if dead.rejected else None
        return self._dead_letter(
            lane,
            dead_letter,
            fatal=dead.fatal,
            whole=dead.whole,
            spans=dead.spans,
            rejected_at=rejected_at,
        )

    def _dead_letter(
        self,
        lane: _Lane[T],
        dead_letter: DeadLetter[T],
        *,
        fatal: bool = True,
        whole: bool = False,
        spans: bool = False,
        rejected_at: int | None = None,
    ) -> tuple[Delivery[T], DeadLetter[T]]:
        """Take the head off the line for good. Its dependents follow once they are at the head."""
        delivery = self._pop(lane)
        # What is another process's by now may have its effect there.
        if self._dependents is not None and fatal and not delivery.revoked:
            self._dependents.lose(
                delivery.item, dead_letter.reason, rejected_at=rejected_at, whole=whole, spans=spans
            )
        self._absolve(lane)
        return delivery, dead_letter

    def _absolve(self, lane: _Lane[T]) -> None:
        """Void what was held against the head, which is gone."""
        lane.failures = lane.shared = lane.attempts = 0
        lane.verdict = None
        lane.blame = 0.0

    def _doom_of(
        self, lane: _Lane[T], delivery: Delivery[T]
    ) -> tuple[DeadLetter[T], int | None] | Superseded | None:
        """Return the dead letter of what must not be sent: its queue says so, or something it needs was lost.

        Beside it stands after how many successes a rejection began that, if one did. What is superseded has
        no dead letter; an operator who replays it is to hear what the API says.
        """
        if delivery.dead_letter is not None and not delivery.revoked:  # else its owner dead-letters it
            return delivery.dead_letter, None
        loss = self._dependents.loss_of(delivery.item) if self._dependents else None
        if loss is None:
            return None
        if loss.superseded:
            return None if delivery.replayed else SUPERSEDED
        reason = loss.reason if loss.reason.startswith(FOLLOWS) else FOLLOWS + loss.reason
        tried = _attempts(lane) if delivery is lane.line[0] else 0
        return DeadLetter(delivery.item, reason, attempts=tried), loss.rejected_at


def _attempts(lane: _Lane[T]) -> int:
    """Return how often the head of a lane was sent on its own account, by owners that crashed, too."""
    return lane.attempts + lane.line[0].crashes
