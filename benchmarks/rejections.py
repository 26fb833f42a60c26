"""What instances that the API rejects cost all others: silence, time, throughput, requests, dead letters.

``python -m benchmarks.rejections [--transport URL] [--kind KIND] [--bad 300] [--good 40] [--operations 20]``:
bad instances of so many operations are put beside good ones, which go on working, and everything is measured
beside a control without bad ones. The kinds:

- ``unknown``: their registrations were never sent;
- ``refused``: their registrations are refused with 422;
- ``half``: the first half of their operations is lost, as after FLUSHALL;
- ``finished``: spans that come after the end of their instance.

``--backlog`` puts the bad ones before the worker starts. ``--sustained SECONDS`` has new bad ones come,
``--rate`` a second, while the good ones go on for so long. ``--all-bad``: the API rejects everything;
after 20 s a good instance comes, and then the fault is mended. ``--scenarios`` runs the five that matter.

By default on a Redis and a RabbitMQ of this run's own; or under a prefix of its own at ``--transport``, which
is cleared afterwards. Measuring stops ``--limit`` seconds after the good ones' last put.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from prefactor_core import Operation
from prefactor_core.broker.queue import BrokerQueue
from tests.support.brokers.rabbitmq_server import RabbitServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Fleet, running_fleet
from tests.support.lives import PFIDS, finish, register, rejected, span, start, whole
from tests.support.watched_api import WatchedApi, watched_api
from tests.support.watching import Probed, dead_letters, probed_worker, set_faults

_PACE: Final = 0.25
"""Seconds between two spans of a good instance."""
_PROBING: Final = 20.0
"""Seconds for which everything is rejected, with ``--all-bad``."""
_RATED: Final = 10.0
"""The last of those, in which requests are counted."""
_LOOK: Final = 0.25


@dataclass(frozen=True)
class Plan:
    """What is put.

    Attributes:
        kind: What is wrong with the bad instances.
        bad: How many of them.
        good: Instances that nothing is wrong with.
        operations: Of each instance; of a good one, unless it goes on for longer.
        sustained: Seconds for which bad ones come and good ones go on; 0 for once.
        rate: Bad ones a second, meanwhile.
        backlog: Whether the bad ones are there before the worker.
        all_bad: Whether everything is rejected.
        limit: Seconds after which measuring stops.
    """

    kind: str = "unknown"
    bad: int = 300
    good: int = 40
    operations: int = 20
    sustained: float = 0.0
    rate: float = 20.0
    backlog: bool = False
    all_bad: bool = False
    limit: float = 60.0

    def __str__(self) -> str:
        """Name it as a line above its figures does."""
        if self.all_bad:
            return f"everything rejected, {self.bad} instances"
        bad = f"{self.rate:g} {self.kind} a second" if self.sustained else f"{self.bad} {self.kind}"
        return f"{bad}{' in a backlog' if self.backlog else ''} beside {self.good} good"


SCENARIOS: Final = (
    Plan("unknown", bad=300),
    Plan("refused", bad=200),
    Plan("half", bad=300, good=20, backlog=True),
    Plan("unknown", sustained=20.0),
    Plan(bad=300, all_bad=True),
)


# -- one run


class _Good:
    """The good instances: what they put and when, and when it took effect."""

    def __init__(self, queue: BrokerQueue) -> None:
        self._queue = queue
        self.put_at: dict[str, float] = {}
        self.done_at: dict[str, float] = {}

    async def run(self, plan: Plan) -> None:
        """Run one, a span every quarter of a second."""
        one = PFIDS.new()
        await self._put(register(one), start(one))
        began = time.time()
        left = plan.operations - 3
        while left > 1 or time.time() - began < plan.sustained:
            await self._put(*span(one))
            left -= 2
            await asyncio.sleep(_PACE)
        await self._put(finish(one))

    async def _put(self, *operations: Operation) -> None:
        for operation in operations:
            self.put_at[operation.idempotency_key or ""] = time.time()
            await self._queue.put(operation)

    async def look(self, fleet: Fleet) -> bool:
        """See what has taken effect since; whether that is everything."""
        for effect in await fleet.emulator.effects():
            if effect["key"] in self.put_at:
                self.done_at[effect["key"]] = datetime.fromisoformat(effect["at"]).timestamp()
        return len(self.done_at) == len(self.put_at)

    def silence(self, until: float) -> float:
        """Return the longest time without a success in which something of theirs was unsettled."""
        changes = [(at, 1) for at in self.put_at.values()] + [(at, -1) for at in self.done_at.values()]
        changes.sort()
        longest, unsettled, since = 0.0, 0, until
        for at, change in changes:
            if change < 0:
                longest = max(longest, at - since)
            if change < 0 or unsettled == 0:
                since = at
            unsettled += change
        return max(longest, until - since) if unsettled else longest


@dataclass
class Result:
    """What was measured of one run.

    Attributes:
        silence: The longest time without a success of the good ones.
        finished: Seconds until the last of them was done; or until measuring stopped.
        complete: Whether they were all done by then.
        rate: Their operations a second.
        requests: All writes, in bulk or single.
        per_bad: Requests that the API answered for a bad instance, on average; and the most for one.
        all_dead: Dead letters by reason.
        drained: Whether nothing waited in the end.
    """

    silence: float
    finished: float
    complete: bool
    rate: float
    requests: int
    per_bad: tuple[float, int]
    all_dead: dict[str, int]
    drained: bool


def _bad(plan: Plan) -> list[Operation]:
    return whole(plan.operations) if plan.all_bad else rejected(plan.kind, plan.operations)


class _Bad:
    """The bad instances, and whom each of their operations belongs to."""

    def __init__(self, queue: BrokerQueue) -> None:
        self._queue = queue
        self._owners: dict[str, str] = {}
        self.instances = 0
        self.operations = 0

    async def put(self, plan: Plan, number: int) -> None:
        """Put so many."""
        for _ in range(number):
            self.instances += 1
            for operation in _bad(plan):
                instance = operation.instance_id or ""
                self._owners[operation.idempotency_key or ""] = instance
                self.operations += 1
                await self._queue.put(operation)

    async def keep_coming(self, plan: Plan) -> None:
        """Put new ones for as long as the good ones go on."""
        began = time.time()
        while (passed := time.time() - began) < plan.sustained:
            await self.put(plan, int(passed * plan.rate) - self.instances)
            await asyncio.sleep(0.05)

    def requests(self, api: WatchedApi) -> tuple[float, int]:
        """Return how many requests said something of each of them, and the most for one."""
        found = api.answers(self._owners)
        return found.total() / max(1, self.instances), max(found.values(), default=0)


async def _until(condition: Callable[[], Awaitable[bool]], deadline: float) -> bool:
    """Wait for a condition of other processes until a moment; whether it was met."""
    while not (met := await condition()) and time.time() < deadline:  # noqa: ASYNC110 -- they have no event
        await asyncio.sleep(_LOOK)
    return met


async def _ready(worker: Probed) -> None:
    assert await _until(lambda: worker.answers("/readyz", 200), time.time() + 30), worker.child.log


async def _drained(queue: BrokerQueue, worker: Probed) -> bool:
    """Whether nothing waits at the broker, nor in the worker: brokers may count only what is unread."""
    return await queue.depth() == 0 and await worker.metric("prefactor_operations_prefetched") == 0


async def _letters(fleet: Fleet) -> dict[str, int]:
    """Count dead letters by reason."""
    found = Counter(dead.reason for dead in await dead_letters(fleet))
    return dict(found.most_common(6))


async def _measure(fleet: Fleet, plan: Plan) -> Result:
    queue, beside = (fleet.queue(buffer_operations=500_000, buffer_bytes=2**30) for _ in range(2))
    good, bad = _Good(queue), _Bad(beside)
    async with watched_api(fleet.emulator.url) as (api, url):
        if plan.backlog:
            await bad.put(plan, plan.bad)
            assert await beside.flush(60)
        worker = await probed_worker(fleet, "--api-url", url)
        if not plan.backlog:
            await _ready(worker)
        began = time.time()
        tasks = [asyncio.create_task(good.run(plan)) for _ in range(plan.good)]
        if plan.sustained and plan.bad:
            tasks.append(asyncio.create_task(bad.keep_coming(plan)))
        elif not plan.backlog:
            await bad.put(plan, plan.bad)
        await asyncio.gather(*tasks)
        stop = time.time() + plan.limit
        complete = await _until(lambda: good.look(fleet), stop)
        end = max(good.done_at.values(), default=stop) if complete else time.time()
        drained = await _until(lambda: _drained(queue, worker), stop)
        result = Result(
            good.silence(end),
            end - began,
            complete,
            len(good.done_at) / (end - began),
            len(api.requests),
            bad.requests(api),
            await _letters(fleet),
            drained,
        )
        await worker.child.kill()
    await _close(queue, beside)
    return result


async def _close(*queues: BrokerQueue) -> None:
    await queues[0].broker.clear()
    for queue in queues:
        await queue.close()
        await queue.disconnect()


def _print(name: str, plan: Plan, control: Result, found: Result) -> None:
    more = "" if found.complete else ">"
    print(f"{name}, {plan}:")
    print(
        f"  longest silence {control.silence:.1f} s alone, {more}{found.silence:.1f} s: "
        f"{found.silence - control.silence:+.1f} s"
    )
    print(
        f"  finished after {control.finished:.1f} s alone, {more}{found.finished:.1f} s: "
        f"{found.finished - control.finished:+.1f} s, x{found.finished / control.finished:.2f}"
    )
    print(
        f"  {control.rate:.1f} operations/s alone, {found.rate:.1f}: x{found.rate / control.rate:.2f}; "
        f"requests {control.requests} alone, {found.requests}"
    )
    print(f"  requests answered for a bad instance {found.per_bad[0]:.1f}, at most {found.per_bad[1]}")
    print(
        f"  {sum(found.all_dead.values())} dead letters{'' if found.drained else ' when measuring stopped'}:"
    )
    for reason, count in found.all_dead.items():
        print(f"    {count:>6} {reason}")
    sys.stdout.flush()


# -- everything is bad


async def _measure_all_bad(name: str, fleet: Fleet, plan: Plan) -> None:
    queue = fleet.queue(buffer_operations=500_000, buffer_bytes=2**30)
    good, bad = _Good(queue), _Bad(queue)
    await set_faults(fleet.emulator, "reject:status=404")
    async with watched_api(fleet.emulator.url) as (api, url):
        worker = await probed_worker(fleet, "--api-url", url)
        await _ready(worker)
        await bad.put(plan, plan.bad)
        await asyncio.sleep(_PROBING - _RATED)
        before, since = len(api.requests), time.time()
        await asyncio.sleep(_RATED)
        rate = (len(api.requests) - before) / (time.time() - since)
        all_dead = await dead_letters(fleet)
        await good.run(plan)
        mended = time.time()
        at_mending = len(await dead_letters(fleet))
        await set_faults(fleet.emulator)
        complete = await _until(lambda: good.look(fleet), mended + plan.limit)
        waited = (max(good.done_at.values()) if complete else time.time()) - mended
        drained = await _until(lambda: _drained(queue, worker), mended + plan.limit)
        print(f"{name}, {plan}:")
        rejections = sum(dead.reply is not None for dead in all_dead)
        print(
            f"  {len(all_dead)} dead letters after {_PROBING:.0f} s, {rejections} of them with a reply; "
            f"{rate:.1f} requests/s"
        )
        print(f"  {at_mending} when it was mended, {len(await dead_letters(fleet))} in the end")
        print(f"  the good one was done {'' if complete else '>'}{waited:.1f} s after that")
        effects, puts = await fleet.effects(), bad.operations + len(good.put_at)
        print(
            f"  {time.time() - mended:.1f} s after that {effects} of {puts} had taken effect, "
            f"{'nothing' if drained else 'something'} waited"
        )
        sys.stdout.flush()
        await worker.child.kill()
    await _close(queue)


# -- all of it


@contextmanager
def _own_brokers() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        urls: dict[str, str] = {}
        for name, server in (
            ("redis", RedisServer(Path(folder, "redis"), "appendfsync everysec")),
            ("rabbitmq", RabbitServer(Path(folder, "rabbitmq"))),
        ):
            servers.callback(server.close)
            server.start()
            urls[name] = server.url
        yield urls


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def _run(name: str, url: str, plan: Plan) -> None:
    def fresh() -> str:
        return f"{url}{'&' if '?' in url else '?'}prefix=bench-{uuid.uuid4().hex[:8]}"

    if plan.all_bad:
        with _folder() as folder:
            async with running_fleet(fresh(), folder) as fleet:
                await _measure_all_bad(name, fleet, plan)
        return
    found: list[Result] = []
    for bad in (0, plan.bad):
        with _folder() as folder:
            async with running_fleet(fresh(), folder) as fleet:
                found.append(await _measure(fleet, replace(plan, bad=bad, backlog=plan.backlog and bad > 0)))
    _print(name, plan, *found)


async def _main(urls: dict[str, str], plans: list[Plan]) -> None:
    for plan in plans:
        for name, url in urls.items():
            await _run(name, url, plan)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", metavar="URL")
    parser.add_argument("--kind", choices=["unknown", "refused", "half", "finished"], default="unknown")
    parser.add_argument("--bad", type=int, default=300)
    parser.add_argument("--good", type=int, default=40)
    parser.add_argument("--operations", type=int, default=20)
    parser.add_argument("--sustained", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--backlog", action="store_true")
    parser.add_argument("--all-bad", action="store_true")
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--scenarios", action="store_true")
    options = vars(parser.parse_args())
    transport, scenarios = options.pop("transport"), options.pop("scenarios")
    if options["operations"] < 4:
        parser.error("an instance has 4 operations at least")
    plans = list(SCENARIOS) if scenarios else [Plan(**options)]
    if transport:
        asyncio.run(_main({transport.partition(":")[0]: transport}, plans))
        return
    with _own_brokers() as urls:
        asyncio.run(_main(urls, plans))


if __name__ == "__main__":
    main()
