"""`check --strict`: what a monitor asks, by its exit status; and `--version`."""

import asyncio
from datetime import UTC, datetime
from importlib.metadata import version

from prefactor_core.broker.driver import PartitionState
from prefactor_worker.operate.check_broker import DEFAULT_MAX_BACKLOG, Limits, judge
from prefactor_worker.operate.findings import Findings, Level
from prefactor_worker.operate.look import Look, Row
from tests.support.operations import life
from tests.worker.commands import Done, command, open_queue, publish


async def _check(url: str, *arguments: str) -> Done:
    done = await command("check", "--json", "--transport", url, *arguments)
    assert done.errors == ""
    assert done.document["ok"] is (done.status == 0)
    assert done.document["strict"] is ("--strict" in arguments)
    return done


def _problems(done: Done) -> list[str]:
    return [one["text"] for one in done.document["findings"] if one["level"] == "problem"]


async def test_no_worker_is_a_problem_and_one_is_none(transport_url: str) -> None:
    unused, lenient = await asyncio.gather(_check(transport_url, "--strict"), _check(transport_url))
    assert (unused.status, _problems(unused)) == (1, ["strict: no worker owns a partition"])
    assert (lenient.status, _problems(lenient)) == (0, [])
    async with open_queue(transport_url) as queue:
        await publish(queue, life("only"))
        for delivery in await queue.receive(100, 1 << 20):
            await queue.settle([delivery])
        with_worker = await _check(transport_url, "--strict")
        printed = await command("check", "--strict", "--transport", transport_url)
    assert (with_worker.status, _problems(with_worker)) == (0, [])
    assert printed.status == 0
    without = await command("check", "--strict", "--transport", transport_url)
    assert without.status == 1
    assert "strict: no worker owns a partition" in without.output


async def test_an_old_backlog_is_a_problem(redis_transport: str) -> None:
    async with open_queue(redis_transport) as queue:
        await publish(queue, life("only"))
        held = await queue.receive(100, 1 << 20)
        assert held
        await asyncio.sleep(0.01)
        old, young, long = await asyncio.gather(
            _check(redis_transport, "--strict", "--max-age", "0"),
            _check(redis_transport, "--strict"),
            _check(redis_transport, "--strict", "--max-backlog", "4"),
        )
        await queue.release(held)
    (problem,) = _problems(old)
    assert problem.startswith("strict: the oldest operation has waited for ")
    assert (young.status, _problems(young)) == (0, [])
    assert _problems(long) == ["strict: 5 operations in the backlog; the limit is 4"]
    assert (old.status, long.status) == (1, 1)


async def test_a_backlog_without_an_age_is_judged_by_its_length(rabbitmq_transport: str) -> None:
    async with open_queue(rabbitmq_transport) as queue:
        await publish(queue, life("only"))
    long, short = await asyncio.gather(
        _check(rabbitmq_transport, "--strict", "--max-backlog", "4"), _check(rabbitmq_transport, "--strict")
    )
    no_worker = "strict: no worker owns a partition"
    assert _problems(long) == [no_worker, "strict: 5 operations in the backlog; the limit is 4"]
    assert _problems(short) == [no_worker]
    (said,) = [one["text"] for one in short.document["findings"] if "does not tell how old" in one["text"]]
    assert f"5 of at most {DEFAULT_MAX_BACKLOG:,}" in said


def _judged(limits: Limits, *rows: tuple[int, float | None], owner: str | None = "") -> list[Level]:
    findings = Findings("broker")
    looked = [
        Row(PartitionState(number, waiting, None, owner), age, None)
        for number, (waiting, age) in enumerate(rows)
    ]
    judge(findings, Look(datetime.now(UTC), looked, 0), limits)
    return [one.level for one in findings.all]


def test_the_limits() -> None:
    for limits, rows, levels in (
        (Limits(), [(0, None), (0, None)], []),
        (Limits(), [(9_999_999, 299.0)], []),
        (Limits(), [(1, 1.0), (1, 301.0)], [Level.PROBLEM]),
        (Limits(), [(DEFAULT_MAX_BACKLOG, None)], [Level.OK]),
        (Limits(), [(DEFAULT_MAX_BACKLOG, None), (1, None)], [Level.PROBLEM]),
        (Limits(max_backlog=0), [(1, None)], [Level.PROBLEM]),
        (Limits(max_backlog=0), [(0, None)], []),
        (Limits(max_age=10, max_backlog=5), [(6, 11.0)], [Level.PROBLEM, Level.PROBLEM]),
    ):
        assert _judged(limits, *rows) == levels, (limits, rows)
    assert _judged(Limits(), (0, None), owner=None) == [Level.PROBLEM], "who owns no partition is no worker"


async def test_the_version_is_one_line() -> None:
    done = await command("--version")
    assert (done.status, done.errors) == (0, "")
    assert done.output == f"prefactor-worker {version('prefactor-core')}\n"
