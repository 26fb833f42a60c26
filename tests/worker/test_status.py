"""`status`: what it shows of a broker, and how it watches one."""

import asyncio
import io
import os
import pty
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import redis
from rich.console import Console

from prefactor_core.broker.driver import PartitionState
from prefactor_worker.operate.look import Look, Row
from prefactor_worker.operate.status_view import as_json, as_table
from prefactor_worker.operate.words import duration
from tests.support.brokers.redis_server import RedisServer
from tests.support.operations import life
from tests.worker.commands import PARTITIONS, command, dead_letter, open_queue, publish, watching


async def _status(url: str, *arguments: str) -> dict[str, Any]:
    done = await command("status", "--transport", url, "--json", *arguments)
    assert (done.status, done.errors) == (0, "")
    found: dict[str, Any] = done.document
    return found


async def test_nothing_there_yet_and_nothing_is_made_by_looking(
    transport_url: str, redis_url: str, redis_prefix: str
) -> None:
    document, done = await asyncio.gather(
        _status(transport_url), command("status", PREFACTOR_TRANSPORT_URL=transport_url)
    )
    assert document["partitions"] == []
    assert document["total"]["dead_letters"] == 0
    assert (done.status, done.errors) == (0, "")
    assert "No partitions yet: no agent and no worker has used this broker." in done.output
    with redis.Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(match=f"*{redis_prefix}*", count=1_000)) == []


async def test_what_waits_who_owns_it_and_what_is_dead(transport_url: str) -> None:
    tells_all = transport_url.startswith("redis")
    async with open_queue(transport_url) as queue:
        await dead_letter(queue, life("dead"))
        await publish(queue, life("waiting", spans=3))
        owned = await _status(transport_url)
        total = owned["total"]
        assert (total["partitions"], total["owned"]) == (PARTITIONS, PARTITIONS)
        assert total["workers"] == (1 if tells_all else None), "the command itself is none"
        name = f":{os.getpid()}"
        for row in owned["partitions"]:
            assert row["owned"]
            assert row["owner"].endswith(name) if tells_all else row["owner"] is None
            assert row["backlog_change_per_second"] is None
        if tells_all:  # what a worker has in hand waits all the same
            assert total["backlog"] == 9
            assert 0 <= total["oldest_seconds"] < 60
    free = await _status(transport_url)
    done = await command("status", "--transport", transport_url)
    total = free["total"]
    assert (total["owned"], total["backlog"], total["backlog_change_per_second"]) == (0, 9, None)
    assert total["dead_letters"] == 5
    assert sum(row["backlog"] for row in free["partitions"]) == 9
    assert [row["partition"] for row in free["partitions"]] == list(range(PARTITIONS))
    assert {row["owner"] for row in free["partitions"]} == {None}
    assert {row["dead_letters"] for row in free["partitions"]} == ({0, 5} if tells_all else {None})
    assert datetime.fromisoformat(free["at"]).tzinfo is not None
    assert "secret" not in free["broker"]
    assert "guest:" not in free["broker"]

    assert (done.status, done.errors) == (0, "")
    for words in ("partition", "owner", "backlog", "oldest", "dead letters", "none", "│       all │"):
        assert words in done.output
    assert "No worker is there: operations wait until one is." in done.output
    assert ("This broker tells neither which worker" in done.output) is not tells_all
    assert "change/s" not in done.output, "that takes two looks"


async def test_a_watch_tells_changes_survives_an_outage_and_ends_well(
    make_redis_server: Callable[..., RedisServer],
) -> None:
    server = make_redis_server()
    url = f"{server.url}?partitions={PARTITIONS}"
    async with open_queue(url) as queue:
        await publish(queue, life("first"))
    arguments = ("status", "--watch", "--json", "--interval", "0.2", "--transport", url)
    async with asyncio.timeout(180), watching(*arguments) as watch:
        first, second = await watch.look(), await watch.look()
        assert first["total"]["backlog_change_per_second"] is None
        assert second["total"]["backlog_change_per_second"] == 0.0
        async with open_queue(url) as queue:
            await publish(queue, life("second"))
        while not (look := await watch.look())["total"]["backlog_change_per_second"]:
            pass
        assert look["total"]["backlog"] > 5
        assert look["total"]["backlog_change_per_second"] > 0
        server.kill()
        while "error" not in (look := await watch.look()):
            pass
        assert "cannot be reached" in look["error"]
        server.start()
        while "error" in (look := await watch.look()):
            pass
        assert look["total"]["backlog"] == 10
        done = await watch.stop(signal.SIGINT)
    assert (done.status, done.errors) == (0, "")


async def test_a_watch_on_a_terminal_is_redrawn_and_leaves_the_cursor_alone(rabbitmq_transport: str) -> None:
    async with open_queue(rabbitmq_transport) as queue:
        await publish(queue, life("only"))
    ours, theirs = pty.openpty()
    try:
        arguments = ("status", "--watch", "--interval", "0.1", "--transport", rabbitmq_transport)
        async with watching(*arguments, stdout=theirs, TERM="xterm", LINES="40") as watch:
            seen = b""
            async with asyncio.timeout(180):
                while seen.count(b"Ctrl-C ends this") < 3:
                    seen += await asyncio.to_thread(os.read, ours, 65_536)
            done = await watch.stop(signal.SIGTERM)
            seen += os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.status, done.errors) == (0, "")
    assert b"change/s" in seen
    assert b"trying again" not in seen
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") > -1, "the cursor is shown again"


async def test_a_reader_that_leaves_is_no_error(redis_transport: str) -> None:
    arguments = ("status", "--watch", "--json", "--interval", "0.1", "--transport", redis_transport)
    ours, theirs = os.pipe()
    async with watching(*arguments, stdout=theirs) as watch:
        os.close(theirs)
        assert os.read(ours, 1) == b"{"
        os.close(ours)
        async with asyncio.timeout(180):
            _, errors = await watch.process.communicate()
    assert (watch.process.returncode, errors) == (141, b"")


# -- what is shown


def _look(*states: PartitionState, dead: int | None = None, change: float | None = None) -> Look:
    at = datetime.now(UTC)
    rows = [
        Row(state, None if state.oldest is None else at.timestamp() - state.oldest, change)
        for state in states
    ]
    return Look(at, rows, dead or sum(state.dead or 0 for state in states))


def _printed(look: Look, rows: int | None = None) -> str:
    written = io.StringIO()
    Console(file=written, width=100).print(as_table("a broker", look, watched=True, rows=rows))
    return written.getvalue()


def test_of_many_partitions_the_busiest_are_shown_in_their_order() -> None:
    states = [PartitionState(number, number % 7, number // 50, "here:1") for number in range(100)]
    printed = _printed(_look(*states, change=-1.25), rows=3)
    shown = [line.split("│")[1].strip() for line in printed.splitlines() if "here:1" in line]
    assert shown == ["55", "62", "69"], "most waits there, and dead letters beside"
    assert "97 quieter partitions are not shown." in printed
    assert "-125.0" in printed, "the sum is that of all"


def test_what_is_wrong_is_pointed_out() -> None:
    printed = _printed(_look(PartitionState(0, 5, 0, None), PartitionState(1, 0, 0, "here:1")))
    assert "1 partition without an owner: what is in there waits." in printed
    assert "1 worker" in printed
    for look in (_look(PartitionState(0, 5, 0, None)), _look()):
        assert "aside" not in _printed(look)
        for aside, words in (
            (1, "1 worker stands aside: the API refuses its token."),
            (3, "3 workers stand aside: the API refuses their token."),
        ):
            refused = replace(look, aside=aside)
            assert words in _printed(refused)
            assert as_json("a broker", refused)["total"]["standing_aside"] == aside
    # Names do not speak to the terminal.
    assert "\x1b" not in _printed(_look(PartitionState(0, 0, 0, "\x1b[31mred")))


async def test_who_stands_aside_is_counted(transport_url: str) -> None:
    async with open_queue(transport_url) as queue:
        await publish(queue, life("only"))
        async with asyncio.timeout(180), queue.broker.consuming() as end:
            await end.partitions()
            await end.stand_aside()
            while (await _status(transport_url))["total"]["standing_aside"] != 1:
                await asyncio.sleep(0.2)
    async with asyncio.timeout(180):
        while (await _status(transport_url))["total"]["standing_aside"]:
            await asyncio.sleep(0.2)


def test_durations_are_short() -> None:
    seconds = (0.4, 59, 90, 7200, 129_600)
    assert [duration(one) for one in seconds] == ["0 s", "59 s", "1.5 min", "2.0 h", "1.5 d"]
