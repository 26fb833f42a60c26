"""What tests of clients that many threads use have in common: programs, the load, looks at the account."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from prefactor_core import (
    AgentInstanceHandle,
    ClientClosedError,
    ClientStats,
    HttpClientConfig,
    Operation,
    OperationType,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    Queue,
    QueueConfig,
    SpanContext,
)
from tests.client.load import Load, count, new_instance, registry
from tests.support.emulator import Emulator
from tests.support.recording import Comparison, RecordingQueue, compare
from tests.support.threads import in_threads

THREADS: Final = 8
DEADLINE: Final = 300.0
"""Seconds for everything: it says that something hangs, and not that a machine is busy."""


async def each_in_its_loop(*programs: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run each of these in a thread and an event loop of its own, while this event loop goes on."""

    def in_a_loop(program: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
        return lambda: asyncio.run(program())

    async with asyncio.timeout(DEADLINE):
        await asyncio.to_thread(in_threads, *map(in_a_loop, programs))


def settings(url: str, **more: Any) -> PrefactorCoreConfig:
    """Return the configuration of a client of an API, whose backoff suits a test."""
    return PrefactorCoreConfig(
        http_config=HttpClientConfig(api_url=url, api_token="test", max_retry_delay=1),
        queue_config=QueueConfig(retry_delay_base=0.05),
        schema_registry=registry(),
        **more,
    )


@contextmanager
def noting(queue: Queue[Operation]) -> Iterator[list[Operation]]:
    """Note what is offered to a queue: of each instance in order, since its calls come one by one."""
    noted: list[Operation] = []
    offer = queue.offer  # type: ignore[attr-defined]

    def note(item: Operation) -> None:
        offer(item)
        noted.append(item)

    queue.offer = note  # type: ignore[attr-defined]
    try:
        yield noted
    finally:
        del queue.offer  # type: ignore[attr-defined]


def parents_of(operations: Iterable[Operation]) -> dict[str | None, str | None]:
    """Return the parents of the spans that operations create."""
    return {one.span_id: one.parent_span_id for one in operations if one.type is OperationType.CREATE_SPAN}


def keys_by_instance(operations: Iterable[Operation]) -> dict[str, list[str]]:
    """Return the keys of operations, by instance, in their order."""
    found: dict[str, list[str]] = {}
    for operation in operations:
        found.setdefault(operation.instance_id or "", []).append(operation.idempotency_key or "")
    return found


def check_sequence(keys: list[str]) -> None:
    """Of one instance: each key once, what begins before what ends, and nothing outside of its life."""
    assert len(keys) == len(set(keys)), "doubled"
    assert keys[0].endswith(":register")
    assert keys[1].endswith(":start")
    position = {key: number for number, key in enumerate(keys)}
    for key, number in position.items():
        span, _, what = key.partition(":")
        if what == "finish" and number < len(keys) - 1:
            assert position[f"{span}:create"] < number, key


class Elsewhere(RecordingQueue):
    """A queue that ends elsewhere: no library of others is at work in this event loop."""

    local = False


@asynccontextmanager
async def emptied_elsewhere(
    max_items: int | None = None,
) -> AsyncIterator[tuple[PrefactorCoreClient, Elsewhere, list[AgentInstanceHandle]]]:
    """Yield a client, its queue, and instances that are under way, one for every two threads."""
    queue = Elsewhere(max_items)
    client = PrefactorCoreClient(PrefactorCoreConfig(schema_registry=registry()), queue)
    await client.initialize()
    instances = [await new_instance(client) for _ in range(THREADS // 2)]
    for instance in instances:
        await instance.start()

    async def empty() -> None:
        while True:
            await queue.settle(await queue.receive(100, 1 << 30))

    emptying = None if max_items else asyncio.create_task(empty())
    try:
        yield client, queue, instances
    finally:
        if emptying is not None:
            emptying.cancel()
            await asyncio.gather(emptying, return_exceptions=True)
        await client.close(timeout=0)


# -- the load


@dataclass
class SharedLoad(Load):
    """The load of threads that record in the same instances, in each other's spans too.

    Attributes:
        calls: By thread and instance: the keys that its calls must lead to, in their order.
    """

    calls: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    open: dict[str, deque[SpanContext]] = field(default_factory=dict)

    async def shared_turn(self, thread: int, instance: AgentInstanceHandle) -> None:
        """Record three spans: one for others to begin and to record in as it ends, and two in another's."""
        calls = self.calls.setdefault((thread, instance.id), [])
        offered = self.open.setdefault(instance.id, deque())
        async with instance.span("t:outer", payload={"by": thread}) as mine:
            self.note(mine.id, None)
            offered.append(mine)
            await asyncio.sleep(0)
            try:
                theirs = offered.popleft()  # mine, if nobody else is there
            except IndexError:
                theirs = mine
            # Their thread ends it meanwhile, or has it begun by this.
            async with instance.span("t:inner", parent_span_id=theirs.id) as child:
                self.note(child.id, theirs.id)
                grandchild = await instance.create_span("t:by-hand", parent_span_id=child.id)
                self.note(grandchild, child.id)
                if thread % 2:
                    await theirs.start()
                await instance.finish_span(grandchild)
            calls += [f"{grandchild}:create", f"{grandchild}:finish", f"{child.id}:finish"]
            await mine.complete({"by": thread})
        calls.append(f"{mine.id}:finish")


async def record_everything(
    client: PrefactorCoreClient, instances: int, turns: int
) -> tuple[SharedLoad, list[str]]:
    """Have eight threads register instances, take so many turns at each together, and finish them."""
    load = SharedLoad()
    handles: list[AgentInstanceHandle] = []
    meeting = threading.Barrier(THREADS)

    def program(thread: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def agent() -> None:
            own = [await new_instance(client) for _ in range(instances // THREADS)]
            for number, handle in enumerate(own):
                if number % 2:  # the others begin with their first span, whichever thread's that is
                    await handle.start()
            handles.extend(own)
            meeting.wait(DEADLINE)
            for turn in range(turns):
                for step in range(instances):
                    handle = handles[(step + thread // 2 + turn) % instances]  # two threads at each
                    if (step + turn) % 4:
                        await load.turn(handle)
                    else:
                        await load.shared_turn(thread, handle)
            meeting.wait(DEADLINE)
            for handle in own:
                await handle.finish()

        return agent

    await each_in_its_loop(*map(program, range(THREADS)))
    return load, [handle.id for handle in handles]


async def check_everything(
    emulator: Emulator, load: SharedLoad, instances: list[str], noted: list[Operation]
) -> None:
    """Every effect is there, once, in order, with the right parent."""
    effects = await emulator.effects()
    spans = len(load.parents)
    assert count(effects) == {
        "agent_instances/register": len(instances),
        "agent_instances/start": len(instances),
        "agent_spans/create": spans,
        "agent_spans/finish": spans,
        "agent_instances/finish": len(instances),
    }
    assert compare(noted, effects) == Comparison(lost=0, doubled=0, out_of_order=0)
    keys: dict[str, list[str]] = {}
    for effect in effects:
        keys.setdefault(effect["instance_id"], []).append(effect["key"])
    assert sorted(keys) == sorted(instances)
    for sequence in keys.values():
        check_sequence(sequence)
        assert sequence[-1].endswith(":finish")
    for (_, instance), expected in load.calls.items():
        found = iter(keys[instance])
        assert all(key in found for key in expected), "a thread's calls are out of order"
    parents: dict[str, str | None] = {}
    statuses: dict[str, str] = {}
    for instance in instances:
        for span in (await emulator.instance(instance))["spans"]:
            parents[span["id"]] = span["parent_span_id"]
            statuses[span["id"]] = span["status"]
    assert parents == load.parents
    assert statuses == load.statuses


# -- the account


class Watch:
    """Looks at a client's account in a thread of its own, all the while.

    Attributes:
        returned: By thread: how many operations its calls have recorded and returned.
        looks: How often it has looked.
    """

    def __init__(self, client: PrefactorCoreClient, look_too: Callable[[], object] = lambda: None) -> None:
        self.returned = [0] * THREADS
        self.looks = 0
        self.failure: BaseException | None = None
        self.over = False
        self._client = client
        self._look_too = look_too
        self._put = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.over = True
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "stats() hangs"
        if self.failure is not None:
            raise self.failure

    def check_end(self, put: int) -> None:
        """The account at the end is not behind what was seen of it."""
        assert put >= self._put
        assert self.looks > 0

    def _run(self) -> None:
        try:
            while not self.over:
                self._look()
        except ClientClosedError:
            pass
        except BaseException as failure:  # noqa: BLE001 -- raised where it is stopped
            self.failure = failure

    def _look(self) -> None:
        returned = sum(self.returned)
        stats = self._client.stats()
        check_account(stats)
        assert stats.put >= self._put, "put has fallen"
        assert stats.put >= returned, "an operation is missing whose call had returned"
        self._put = stats.put
        self._look_too()
        self.looks += 1


def check_account(stats: ClientStats) -> None:
    """All that was put is somewhere, and nothing is in two places."""
    dropped, superseded = sum(stats.dropped.values()), sum(stats.superseded.values())
    places = (stats.delivered, superseded, stats.dead_lettered, dropped, stats.buffered, stats.sending)
    assert min(places) >= 0, stats
    assert sum(places) == stats.put, stats


@contextmanager
def watched(client: PrefactorCoreClient, look_too: Callable[[], object] = lambda: None) -> Iterator[Watch]:
    """Look at a client's account meanwhile."""
    watch = Watch(client, look_too)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


async def plain_spans(
    watch: Watch, thread: int, instance: AgentInstanceHandle, spans: int | None, payload: str = "a payload"
) -> None:
    """Record spans, each with two calls, and count the operations of each call that returned."""
    done = 0
    while spans is None or done < spans:
        span = await instance.create_span("t:by-hand", payload={"of": payload})
        watch.returned[thread] += 1
        await instance.finish_span(span, {"done": done})
        watch.returned[thread] += 1
        done += 1
        if done % 20 == 0:  # threads that do nothing else would leave nothing to the one that delivers
            await asyncio.sleep(0 if spans is not None else 0.001)


async def record_plainly(
    client: PrefactorCoreClient, watch: Watch, spans: int | None, until_error: type[Exception] | None = None
) -> None:
    """Have eight threads record in instances that each two of them share."""
    handles = [await new_instance(client) for _ in range(THREADS // 2)]
    watch.returned[0] += len(handles)
    for handle in handles:
        await handle.start()
        watch.returned[0] += 1

    def program(thread: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def agent() -> None:
            if until_error is None:
                await plain_spans(watch, thread, handles[thread // 2], spans)
            else:
                with pytest.raises(until_error):
                    await plain_spans(watch, thread, handles[thread // 2], spans)

        return agent

    await each_in_its_loop(*map(program, range(THREADS)))
