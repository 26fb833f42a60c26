"""Delivery: batches of operations in, requests out, an outcome for each operation back.

Bulk requests first; single ones where there is no bulk, and for an operation whose part in a bulk reply did
not say enough. ``replies`` decides what a reply means, ``circuit_breaker`` whether a failure counts.
"""

import asyncio
import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, Protocol, TypeAlias

from prefactor_core.api.circuit_breaker import CircuitBreaker, Permit
from prefactor_core.api.packing import BULK_LIMITS, Packing, pack
from prefactor_core.api.replies import (
    CONFLICT_CODES,
    TOKEN_STATUSES,
    Reply,
    Standing,
    Verdict,
    classify,
    classify_item,
    control_of,
    loses_instance,
    standing_of,
    termination_of,
)
from prefactor_core.api.terminations import Terminations
from prefactor_core.api.wire import BULK_PATH, WireOperation, bulk_body, encode, instance_path
from prefactor_core.exceptions import OperationError
from prefactor_core.execution.handler import BatchLimits
from prefactor_core.execution.outcome import (
    INSTANCE_OVER,
    NOT_REACHED,
    OVERTAKEN,
    SETTLED,
    SUPERSEDED,
    Apart,
    Dead,
    Outcome,
    Retry,
)
from prefactor_core.operations import SDK_HEADER, SPAN, Operation, Stage
from prefactor_core.queue.base import Delivery
from prefactor_core.texts import LONGEST_SDK_HEADER

logger = logging.getLogger("prefactor_core.api")

_REFUSED_KEPT: Final = 10_000
"""Keys remembered at most of operations that were not allowed once."""

_PATIENCE: Final = 10.0
"""Seconds for which an operation that was refused for the state of its instance is kept, where only another
operation of that instance can tell what state that is: agents make the next one soon, or never."""

_OTHERS_ASKED: Final = 3
"""Other operations that are sent for it at most, each time."""

_ENTRIES_SENT: Final = 16
"""Entries of one SDK header at most, however many kinds of agents are in a request."""

_LATER: Final = frozenset({408, 425, 429})
"""Of the statuses from 400 to 499, those that ask to come again."""

_NO_BULK: Final = frozenset({404, 405, 501})


_Pair: TypeAlias = tuple[Delivery[Operation], WireOperation]


class Api(Protocol):
    """What delivery needs of an HTTP client."""

    async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
        """Send a write, in the name of others where they are named; return what came back, whatever it is."""
        ...

    async def get(self, path: str) -> Reply:
        """Read something and return what came back, whatever it is."""
        ...


class ApiDelivery:
    """The batch handler that posts operations to the API.

    ``retry_on`` are statuses to be retried, whatever else they mean. ``terminations`` is told when a
    reply asks an agent to stop.
    """

    def __init__(
        self,
        api: Api,
        breaker: CircuitBreaker,
        retry_on: Container[int] = (),
        terminations: Terminations | None = None,
        limits: BatchLimits = BULK_LIMITS,
    ) -> None:
        self._api = api
        self._breaker = breaker
        self._retry_on = retry_on
        self._terminations = Terminations() if terminations is None else terminations
        self._packing = Packing(limits)
        self._refused: set[str] = set()  # keys of operations that were not allowed once
        self._makes_no_sense = False

    @property
    def limits(self) -> BatchLimits:
        """How much the next call takes."""
        return self._packing.limits

    @property
    def circuit(self) -> CircuitBreaker:
        """What the executor waits for before it calls."""
        return self._breaker

    async def handle(self, deliveries: Sequence[Delivery[Operation]]) -> list[Outcome]:
        """Send ``deliveries``, unless the circuit is not ready, and return what became of each."""
        wires: list[WireOperation] = []
        for delivery in deliveries:
            try:
                wires.append(encode(delivery.item))
            except OperationError as error:
                if not wires:
                    rest: list[Outcome] = [NOT_REACHED] * (len(deliveries) - 1)
                    return [Dead(str(error), sent=False), *rest]
                break  # its failure is told once it is the first
        if not self._breaker.ready:
            return [NOT_REACHED] * len(deliveries)
        async with self._breaker.permit() as permit:
            if not self._packing.bulk_works or self._packing.travels_alone(wires[0].key):
                outcomes = await self._send_singly(permit, deliveries, wires)
            else:
                outcomes = await self._send_bulk(permit, deliveries, wires)
        return outcomes + [NOT_REACHED] * (len(deliveries) - len(outcomes))

    # -- bulk

    async def _send_bulk(
        self, permit: Permit, deliveries: Sequence[Delivery[Operation]], wires: list[WireOperation]
    ) -> list[Outcome]:
        items = pack(wires)
        batch = deliveries[: len(items)]
        first = not any(delivery.maybe_sent for delivery in batch)
        reply = await self._post(BULK_PATH, bulk_body(items), batch)
        outputs = _outputs(reply)
        if outputs is not None and wires[0].key in outputs:
            return await self._read_outputs(permit, batch, wires, outputs, first=first)
        if outputs is not None:
            reply = self._senseless("says nothing of its first operation")
        if reply.status in _NO_BULK:
            self._packing.no_bulk(reply)
            return []
        cut_off = reply.succeeded and reply.too_large
        if cut_off:
            _mark_sent(batch)  # all of it may have happened; what did has its key
        if (cut_off or reply.status == 413) and len(batch) > 1:
            self._packing.too_large(items, reply)
            return []
        # The verdict over a whole request is the one over any operation in it; conflicts do not occur.
        verdict = classify(reply, batch[0].item.type, maybe_sent=batch[0].maybe_sent, retry_on=self._retry_on)
        if cut_off or verdict in {Verdict.TOO_LARGE, Verdict.REJECTED}:
            return self._set_apart(batch, wires, reply)
        if verdict is Verdict.TOKEN:
            if await self._breaker.refused(permit, reply, batch[0].item.type.name):
                return self._set_apart(batch, wires, reply)
            return [Retry(str(reply), weight=0.0)] * len(batch)
        return [await self._again(permit, reply, batch, first=first)] * len(batch)

    async def _read_outputs(
        self,
        permit: Permit,
        batch: Sequence[Delivery[Operation]],
        wires: list[WireOperation],
        outputs: dict[str, object],
        *,
        first: bool,
    ) -> list[Outcome]:
        """Return the outcomes up to the first operation that was not done."""
        outcomes: list[Outcome] = []
        senseless = False
        for number, (delivery, wire) in enumerate(zip(batch, wires, strict=False)):
            if wire.key not in outputs:
                break
            output = outputs[wire.key]
            if not isinstance(output, dict):
                senseless = True
                break
            verdict = classify_item(output, delivery.item.type, maybe_sent=delivery.maybe_sent)
            if verdict is Verdict.DONE:
                self._hear(delivery.item, output)
                outcomes.append(SETTLED)
            elif verdict is Verdict.OVERTAKEN:
                outcomes.append(OVERTAKEN)
            elif verdict is Verdict.CONFLICT:
                outcomes.append(self._judge_conflict(delivery, Reply(409, output)))
            elif verdict is Verdict.OVER:
                self._breaker.answered(permit)
                sent = list(zip(batch, wires, strict=False))[number:]
                outcomes.append(await self._judge_over(permit, sent, Reply(409, output)))
                break
            else:
                self._packing.set_alone(wire.key)
                outcomes.append(Apart(str(Reply(200, output))))
                break
        if outcomes and outcomes[0] in {SETTLED, OVERTAKEN}:
            self._breaker.succeeded(first=first)
            self._packing.passed()
        if not senseless:
            self._makes_no_sense = False
            return outcomes
        # This operation may have been done, and so may those behind it.
        rest = batch[len(outcomes) :]
        reply = self._senseless("has something else than an object for an operation")
        again = await self._again(permit, reply, rest, first=first and not outcomes)
        return [*outcomes, *([again] * len(rest))]

    def _senseless(self, problem: str) -> Reply:
        """Return what a bulk reply counts as that cannot be understood; say so once until one can."""
        reply = Reply(None, failure=f"a bulk reply that {problem}")
        if not self._makes_no_sense:
            self._makes_no_sense = True
            logger.warning("%s: what was sent is sent again, later; is this the API?", reply)
        return reply

    def _set_apart(
        self, batch: Sequence[Delivery[Operation]], wires: list[WireOperation], reply: Reply
    ) -> list[Outcome]:
        """Have fewer operations travel together, until the one that made the request fail is alone."""
        if len(batch) == 1:
            self._packing.set_alone(wires[0].key)
        return [Apart(str(reply))] * len(batch)

    # -- single requests

    async def _send_singly(
        self, permit: Permit, deliveries: Sequence[Delivery[Operation]], wires: list[WireOperation]
    ) -> list[Outcome]:
        """Send one after the other, up to the first that is not done."""
        outcomes: list[Outcome] = []
        pairs = list(zip(deliveries, wires, strict=False))
        for number, (_, wire) in enumerate(pairs):
            if outcomes and self._packing.bulk_works and not self._packing.travels_alone(wire.key):
                break  # the rest can travel in bulk again
            outcome = await self._send_first(permit, pairs[number:])
            outcomes.append(outcome)
            if outcome not in {SETTLED, OVERTAKEN}:
                break
            self._packing.forget(wire.key)
        return outcomes

    async def _send_first(self, permit: Permit, pairs: Sequence[_Pair]) -> Outcome:
        """Send the first of several operations, by itself."""
        delivery, wire = pairs[0]
        operation = delivery.item
        first = not delivery.maybe_sent
        reply = await self._post(wire.path, wire.single_body(), [delivery])
        verdict = classify(reply, operation.type, maybe_sent=delivery.maybe_sent, retry_on=self._retry_on)
        if verdict is Verdict.DONE:
            self._breaker.succeeded(first=first)
            self._hear(operation, reply.body)
            return SETTLED
        if verdict is Verdict.OVERTAKEN:
            self._breaker.succeeded(first=False)
            return OVERTAKEN
        if self._is_refusal(reply) and self._terminations.certain(operation.instance_id):
            self._breaker.answered(permit)
            return OVERTAKEN if operation.type.rules.stage is Stage.END else _superseded(delivery, reply)
        if verdict is Verdict.CONFLICT:
            self._breaker.answered(permit)
            return _conflict(operation, reply)
        if verdict is Verdict.OVER:
            self._breaker.answered(permit)
            return await self._judge_over(permit, pairs, reply)
        if verdict in {Verdict.REJECTED, Verdict.TOO_LARGE}:
            self._breaker.answered(permit)
            return await self._reject(delivery, reply)
        if verdict is Verdict.TOKEN:
            its_own = await self._breaker.refused(permit, reply, operation.type.name)
            if its_own and self._terminations.certain(operation.instance_id):
                return _superseded(delivery, reply)
            if its_own and self._is_refused(wire.key):
                return Dead(f"not allowed: {reply}", reply.detail, rejected=True)
            return Retry(str(reply), weight=0.0, attempt=its_own)
        again = await self._again(permit, reply, [delivery], first=first)
        return replace(again, attempt=again.weight > 0)

    def _is_refusal(self, reply: Reply) -> bool:
        """Whether the API refuses an operation, whatever its reason; 401 and 403 may be about the token."""
        status = reply.status
        if status is None or reply.code is None or status in self._retry_on or status in TOKEN_STATUSES:
            return False
        return 400 <= status < 500 and status not in _LATER

    def _judge_conflict(self, delivery: Delivery[Operation], reply: Reply) -> Outcome:
        terminated = self._terminations.certain(delivery.item.instance_id)
        return _superseded(delivery, reply) if terminated else _conflict(delivery.item, reply)

    async def _reject(self, delivery: Delivery[Operation], reply: Reply) -> Outcome:
        operation = delivery.item
        whole = loses_instance(reply, operation)
        if whole is None:  # a span that it needs is not there, or the whole instance is not
            found = await self._read(operation)
            if operation.instance_id in self._terminations:
                return _superseded(delivery, reply)  # so is that span
            whole = found is not None and found.code == "not_found"
        # An API that finds fault with the content of something inside an instance knows the instance.
        # Where that is the next thing of every instance, nothing could succeed to have it believed.
        of_content = reply.status == 422 and operation.type.rules.stage is not Stage.REGISTRATION
        return Dead(f"rejected: {reply}", reply.detail, whole=whole, rejected=not of_content)

    # -- what the state of its instance is against

    async def _judge_over(self, permit: Permit, pairs: Sequence[_Pair], reply: Reply) -> Outcome:
        """Return what becomes of the first of several, which was refused for the state of its instance.

        Where that instance is over, its finish is settled; where it is terminated, everything is superseded.
        """
        delivery = pairs[0][0]
        operation = delivery.item
        ends = operation.type.rules.stage is Stage.END
        found = await self._read(operation)
        standing = Standing.TERMINATED if found is None else standing_of(found)
        if found is not None and standing is None:
            # It is the read that may have reached the API, and has to be made again.
            return await self._again(permit, replace(found, reached=False), [delivery], first=False)
        if ends and standing is not Standing.OPEN:
            return OVERTAKEN
        if ends and reply.code not in CONFLICT_CODES:
            return await self._again(permit, reply, [delivery], first=False)  # in flight elsewhere
        if standing is Standing.TERMINATED:
            return _superseded(delivery, reply)
        if standing is Standing.UNREADABLE:
            return await self._judge_by_next(permit, pairs, reply)
        if standing is Standing.FINISHED:
            return _over(operation, reply, rejected=False)
        return _conflict(operation, reply)

    async def _judge_by_next(self, permit: Permit, pairs: Sequence[_Pair], reply: Reply) -> Outcome:
        """Judge the first of several, whose instance cannot be read, by another of it: is that refused, too?

        The other one is sent again in its own turn, which its key makes harmless.
        """
        (delivery, wire), *later = pairs
        operation = delivery.item
        instance_id = operation.instance_id or ""
        now = asyncio.get_running_loop().time()
        waited = self._terminations.refused(instance_id, wire.key, now)
        for other in islice(_that_tell(operation, later), _OTHERS_ASKED):
            if instance_id in self._terminations:
                break
            outcome = await self._send_first(permit, [other])
            if outcome is SETTLED:
                other[0].maybe_sent = True
                if instance_id not in self._terminations:
                    return _conflict(operation, reply)
            elif outcome is OVERTAKEN and other[0].item.type.rules.stage is Stage.END:
                # Not by an earlier sending of ours: what was refused just now comes before it.
                self._terminations.refused(instance_id, other[1].key, now)
            elif not isinstance(outcome, Dead):  # else that one has a fault of its own
                break
        if instance_id in self._terminations:
            return _superseded(delivery, reply)
        if waited >= _PATIENCE:
            return _over(operation, reply, spans=False, rejected=True)  # the next one tells, if it comes
        return Retry(str(reply), weight=0.0, attempt=True)

    async def _read(self, operation: Operation) -> Reply | None:
        """Read an operation's instance, unless it is known to be terminated; note it if it is."""
        instance_id = operation.instance_id or ""
        if instance_id in self._terminations:
            return None
        found = await self._api.get(instance_path(instance_id))
        termination = termination_of(found)
        if termination is not None:
            self._terminations.heard(instance_id, termination.reason)
        return found

    def _is_refused(self, key: str) -> bool:
        """Whether the operation was not allowed before, too.

        Once is not enough: the token may have been bad then, and mended before the ping that found it good.
        """
        if key in self._refused:
            self._refused.remove(key)
            return True
        if len(self._refused) >= _REFUSED_KEPT:
            self._refused.clear()
        self._refused.add(key)
        return False

    # -- both

    def _hear(self, operation: Operation, body: Mapping[str, object] | None) -> None:
        """Pass on what a reply asks of the agent."""
        termination = control_of(body)
        instance_id = operation.instance_id
        if instance_id is None:
            return
        if termination is not None:
            self._terminations.heard(instance_id, termination.reason)
        elif _tells(operation):
            self._terminations.taken(instance_id)

    async def _post(self, path: str, body: bytes, batch: Sequence[Delivery[Operation]]) -> Reply:
        try:
            return await self._api.post(path, body, _sdk_header(batch))
        except asyncio.CancelledError:
            # The next attempt has to know that the effect may have happened.
            _mark_sent(batch)
            raise

    async def _again(
        self, permit: Permit, reply: Reply, batch: Sequence[Delivery[Operation]], *, first: bool
    ) -> Retry:
        if reply.status == 429:
            self._breaker.throttled(permit, reply.retry_after)
            return Retry(str(reply), weight=0.0, retry_after=reply.retry_after)
        if reply.reached:
            _mark_sent(batch)
        lanes = {delivery.item.instance_id or delivery for delivery in batch}
        weight = await self._breaker.failed(permit, reply, lanes, first=first)
        return Retry(str(reply), weight=weight, retry_after=reply.retry_after)


def _sdk_header(batch: Sequence[Delivery[Operation]]) -> str | None:
    """Return the SDK entries of the agents whose operations travel together, if others made them."""
    entries: dict[str, None] = {}
    for delivery in batch:
        header = delivery.item.metadata.get(SDK_HEADER)
        if isinstance(header, str):
            entries.update(dict.fromkeys(header.split()))
    sent = [*entries][:_ENTRIES_SENT]
    while len(" ".join(sent)) > LONGEST_SDK_HEADER:
        sent.pop()
    return " ".join(sent) or None


def _mark_sent(batch: Sequence[Delivery[Operation]]) -> None:
    for delivery in batch:
        delivery.maybe_sent = True


def _superseded(delivery: Delivery[Operation], reply: Reply) -> Outcome:
    """Return the outcome of what a terminated instance does not take; what was replayed is kept."""
    return _over(delivery.item, reply, spans=False, rejected=False) if delivery.replayed else SUPERSEDED


def _conflict(operation: Operation, reply: Reply) -> Dead:
    # An instance that somebody else has started takes what follows; one whose id is taken does not.
    fatal = operation.type.rules.stage is not Stage.START
    return Dead(f"conflict: {reply}", reply.detail, fatal=fatal, rejected=True)


def _over(operation: Operation, reply: Reply, *, spans: bool = True, rejected: bool) -> Dead:
    # One that is over takes no new spans; qualities it does, and the finishes of spans that were left open.
    opens = SPAN in operation.type.rules.opens
    reason = f"{INSTANCE_OVER}: {reply}"
    return Dead(reason, reply.detail, fatal=opens, spans=spans and opens, rejected=rejected)


def _tells(operation: Operation) -> bool:
    """Whether its reply tells how it stands with its instance: one that is over takes the others, too."""
    rules = operation.type.rules
    return rules.stage is not Stage.RUN or SPAN in rules.opens


def _that_tell(refused: Operation, later: Sequence[_Pair]) -> Iterator[_Pair]:
    """Yield what tells how it stands with the instance, but for what needs the span that was refused."""
    missing = {refused.span_id}
    for pair in later:
        other = pair[0].item
        if other.instance_id != refused.instance_id or not _tells(other):
            continue
        if other.parent_span_id is None or other.parent_span_id not in missing:
            yield pair
        else:
            missing.add(other.span_id)


def _outputs(reply: Reply) -> dict[str, object] | None:
    """Return the outputs by key, if this is a bulk reply."""
    if not reply.succeeded or reply.body is None:
        return None
    outputs = reply.body.get("outputs")
    return outputs if isinstance(outputs, dict) else None
