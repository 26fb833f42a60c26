"""`prefactor-worker run` as its user meets it: settings, help, exit statuses, probes, logs, processes."""

import asyncio
import json
import math
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from tests.fleet.scenario import check, published, stop, takes_effect
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import Child, Fleet, running_fleet, until
from tests.support.ports import free_port
from tests.support.processes import catches, exit_status, taking_in_orphans
from tests.support.watching import Probed, on_redis, probed_worker, set_faults
from tests.worker.commands import RUN, command, open_queue

README = Path(__file__).parents[2] / "worker" / "README.md"
GRACE = 50.0


async def test_a_taken_port_is_one_line_and_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = ("--metrics-host", "127.0.0.1", "--metrics-port", str(port))
        done = await command("run", *options, **RUN)
    assert done.status == 2
    assert done.errors.splitlines()[-1].startswith("prefactor-worker: ")
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another, or 0" in done.errors
    assert "Traceback" not in done.errors


async def test_help_and_the_readme_name_every_variable() -> None:
    done = await command("run", "--help")
    assert (done.status, done.errors) == (0, "")
    settings = README.read_text().partition("## Settings")[2].partition("\n## ")[0]
    documented = set(re.findall(r"PREFACTOR_[A-Z_]+", settings))
    # Words are broken across lines, never inside.
    assert set(re.findall(r"PREFACTOR_[A-Z_]+", done.output)) == documented
    assert len(documented) > 12
    for option in re.findall(r"^\| `(--[a-z-]+)`", settings, re.MULTILINE):
        assert option in done.output


@on_redis
async def test_probes_and_metrics_answer(fleet: Fleet) -> None:
    puts = await published(fleet, await fleet.agent("--instances", "5", "--spans", "4"))
    probed = await probed_worker(fleet)
    await takes_effect(fleet, puts)
    await until(lambda: probed.answers("/readyz", 200), 180)
    assert await probed.ask("/readyz") == (200, "ready\n")
    await until(lambda: probed.metric_is("prefactor_operations_prefetched", lambda held: held == 0), 180)
    assert await probed.ask("/healthz") == (200, "nothing to do\n")
    assert (await probed.ask("/elsewhere"))[0] == 404
    assert await probed.metric("prefactor_operations_settled_total") == puts
    assert await probed.metric("prefactor_operations_settled_total", type="create_span") == 5 * 4
    assert await probed.metric("prefactor_partitions_owned") == 16
    assert await probed.metric("prefactor_delivery_seconds_count") == puts
    _, text = await probed.ask("/metrics")
    table = README.read_text().partition("## Metrics")[2].partition("\n## ")[0]
    for name in re.findall(r"^\| `(prefactor_[a-z_]+)`", table, re.MULTILINE):
        assert f"\n# TYPE {name.removesuffix('_total')}" in text, name


async def test_a_broker_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """A worker may be started before its broker is; it says so, lives, and stops when it is told to."""
    async with running_fleet(f"redis://127.0.0.1:{free_port()}/0", tmp_path) as fleet:
        probed = await probed_worker(fleet)
        await until(lambda: "is unavailable" in probed.child.log, 180)
        assert await probed.answers("/healthz", 200)
        assert await probed.answers("/readyz", 503)
        await until(lambda: probed.metric_is("prefactor_broker_unavailable", lambda away: away == 1), 180)
        assert math.isnan(await probed.metric("prefactor_partitions_unowned"))
        await stop(probed.child)


async def test_json_lines_hold_no_secrets(
    make_redis_server: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """Through a rejection, an outage, a lost broker connection and the end."""
    server = make_redis_server("requirepass hunter2")
    url = server.url.replace("redis://", "redis://:hunter2@") + "?prefix=secrets&lease=3"
    async with running_fleet(url, tmp_path) as fleet:
        await set_faults(fleet.emulator, "reject:schema=level-1,count=3")
        worker = await fleet.worker("--log-format", "json", "--log-level", "debug")
        agent = await fleet.agent("--instances", "20", "--spans", "20", "--bytes", "30", "--pace", "0.5")
        await until(lambda: "dead-lettered" in worker.log, 180)
        await fleet.emulator.kill()
        await until(lambda: "is unavailable, and everything waits" in worker.log, 180)
        await fleet.emulator.start()
        await until(lambda: " is back, after " in worker.log, 180)
        await published(fleet, agent)
        await asyncio.to_thread(server.kill)
        await until(lambda: "is unavailable" in worker.log.partition(" is back, after ")[2], 180)
        worker.signal(signal.SIGTERM)
        assert await worker.ended(120) in {0, 1}
        lines = [json.loads(line) for line in worker.log.splitlines()]
    assert len(lines) > 8
    for line in lines:
        assert {"time", "level", "logger", "message", "process"} <= line.keys()
        assert line["level"] in {"debug", "info", "warning", "error"}
    for secret in ("fleet-token", "hunter2", "x" * 10):
        assert secret not in worker.log


@asynccontextmanager
async def several(fleet: Fleet, number: int, *options: str) -> AsyncIterator[Child]:
    """A worker of several processes that has begun to deliver; whatever is left of it is killed."""
    head = await fleet.worker("--processes", str(number), "--log-format", "json", *options)
    try:
        await until(lambda: len(processes(head)) == number, 180, f"{number} workers")
        await takes_effect(fleet, 200)
        yield head
    finally:
        for process in processes(head):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@on_redis
async def test_several_processes_run_and_stop_as_one(fleet: Fleet) -> None:
    agent = await fleet.agent("--instances", "40", "--spans", "24", "--pace", "0.4")
    port = free_port()
    async with several(fleet, 2, "--metrics-host", "127.0.0.1", "--metrics-port", str(port)) as head:
        os.kill(processes(head)[0], signal.SIGKILL)
        await until(lambda: "starting it again" in head.log, 180)
        await until(lambda: len(processes(head)) == 3, 180, "a third in place of the first")
        # Their ports are this one and the next, where that was free.
        await until(lambda: Probed(head, port).answers("/healthz", 200), 180)
        puts = await published(fleet, agent)
        await takes_effect(fleet, puts)
        await stop(head, within=120)
        assert head.log.count("stopped: ") == 2
        assert not any(map(is_alive, processes(head)))
    check(fleet, puts)


@on_redis
async def test_workers_whose_first_process_is_killed_stop_cleanly(fleet: Fleet) -> None:
    agent = await fleet.agent("--instances", "40", "--spans", "24", "--pace", "0.4")
    with taking_in_orphans():
        async with several(fleet, 3, "--grace", str(GRACE)) as head:
            head.signal(signal.SIGKILL)
            for process in processes(head):
                assert await exit_status(process, GRACE) == 0, head.log
    async with open_queue(fleet.url) as queue:
        owners = [state.owner for state in await queue.consumer.states()]
    assert owners == [None] * 16, "all partitions were released"
    assert head.log.count("the first process is gone: finishing what is in flight") == 3
    assert head.log.count("stopped: ") == 3
    puts = await published(fleet, agent)
    await fleet.drain()
    check(fleet, puts)


@on_redis
async def test_a_stop_before_anything_was_begun_is_a_good_end(fleet: Fleet) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        worker = await fleet.worker()
        await until(partial(catches, worker.process.pid, signal.SIGTERM), 180, "it can be stopped")
        worker.signal(number)
        assert await worker.ended(60) == 0, number
        assert worker.log == "", f"{number!r}: it had not come as far as that"


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def processes(head: Child) -> list[int]:
    """Return the ids of all workers that were started so far, in the order in which they began."""
    return [int(number) for number in re.findall(r"worker (\d+) takes from", head.log)]
