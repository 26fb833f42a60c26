"""The demo with a fleet as it is used: a process that starts agents and workers, and kills one of them."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import pytest
import redis
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from rich.console import Console

from prefactor_core import CloseSummary, PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from prefactor_worker.demo.documents import Documents
from prefactor_worker.demo.fleet.broker import place_at
from prefactor_worker.demo.fleet.checker import Count
from prefactor_worker.demo.fleet.jobs import INSTANCES, OPERATIONS, Progress, plan_for
from prefactor_worker.demo.fleet.look import AgentLook, FleetLook, WorkerLook
from prefactor_worker.demo.fleet.outcome import FleetOutcome, FleetResult, Kill
from prefactor_worker.demo.fleet.report import count_line
from prefactor_worker.demo.fleet.view import LiveView, console_view
from prefactor_worker.demo.fleet.workers import WorkerFigures
from prefactor_worker.demo.meter import TelemetryCost
from prefactor_worker.demo.outcome import AgentRun
from tests.client.test_demo import ANIMALS, BARK, PURR, environment
from tests.support.brokers.redis_server import RedisServer
from tests.support.operations import register
from tests.support.ports import free_port

BROKERS = pytest.mark.parametrize("broker", ["redis_url", "amqp_url"])
COUNT = re.compile(r"put (\d+), settled (\d+), lost 0, doubled 0, out of order 0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "animals.md").write_text(ANIMALS)
    (tmp_path / "cats.txt").write_text("A cat will purr because it is content.")
    return tmp_path


@pytest.fixture
def mark() -> Iterator[str]:
    """A value in the environment by which all processes of a demo can be told from others."""
    mark = uuid.uuid4().hex
    yield mark
    for pid in processes(mark):
        os.kill(pid, signal.SIGKILL)


def processes(mark: str, words: str = "") -> list[int]:
    """Return the processes of a demo that still run, those with some words in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words in command:
                    found.append(int(entry.name))
        except OSError:
            continue  # somebody else's, or gone meanwhile
    return found


@contextmanager
def running(url: str, *arguments: str, cwd: Path, mark: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "prefactor_worker", "demo", ".", "--transport", url, "-q", BARK, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(DEMO_MARK=mark),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def demo(url: str, *arguments: str, cwd: Path, mark: str) -> subprocess.CompletedProcess[str]:
    with running(url, *arguments, cwd=cwd, mark=mark) as process:
        output, errors = process.communicate(timeout=90)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def queue_at(url: str) -> BrokerQueue:
    queue = create_queue(url, PrefactorCoreConfig(transport_url=url))
    assert isinstance(queue, BrokerQueue)
    return queue


async def partitions_at(url: str, prefix: str) -> int:
    """Return how many partitions are recorded, without recording any."""
    end = queue_at(f"{url}?prefix={prefix}").broker.consuming()
    try:
        return len(await end.states())
    finally:
        await end.disconnect()


def prefix_in(text: str) -> str:
    found = re.search(r"prefactor-demo-[0-9a-f]+", text)
    assert found is not None, text
    return found.group()


def redis_keys(url: str, prefix: str) -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        return list(client.scan_iter(match=f"*{prefix}*", count=1_000))


async def leftovers(url: str, prefix: str) -> list[str]:
    """Return what is left on a broker under a prefix."""
    if url.startswith("redis"):
        return [key.decode() for key in redis_keys(url, prefix)]
    names = [f"{prefix}.{name}" for name in (*range(8), "dead", "partitions", "workers")]
    async with await aio_pika.connect(url) as connection:
        found = [name for name in names if await exists(connection, name)]
        with suppress(ChannelNotFoundEntity):
            await (await connection.channel()).get_exchange(f"{prefix}.operations", ensure=True)
            found.append("the exchange")
    return found


async def exists(connection: AbstractConnection, queue: str) -> bool:
    try:
        await (await connection.channel()).get_queue(queue, ensure=True)
    except ChannelNotFoundEntity:
        return False
    return True


# -- as a process


@BROKERS
async def test_a_worker_is_killed_and_nothing_is_lost(
    broker: str, request: pytest.FixtureRequest, folder: Path, mark: str
) -> None:
    url = request.getfixturevalue(broker)
    done = demo(url, "-q", PURR, cwd=folder, mark=mark)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-3_000:]
    count = COUNT.fullmatch(done.stdout.splitlines()[-1])
    assert count is not None
    put, settled = map(int, count.groups())
    assert put == settled >= OPERATIONS
    for words in (
        r"worker 1 \(process \d+\) owns \d partitions",
        r"agent 1 put \d+; agent 2 put \d+; worker 1 settled \d+; worker 2 settled \d+; waiting \d+; effects",
        r"worker \d was killed with SIGKILL: it had settled \d+ operations and held \d+; \d+ of \d+ had",
        r"worker \d owns all 8 partitions now",
        r"worker \d settled \d+ \(killed\)",
        r"agent instance [0-9a-z]{32}  complete",
        r"At night the dogs of the village bark at the moon\. \[animals.md:7\]",
        r"of it inside the SDK's calls",
    ):
        assert re.search(words, done.stdout), words
    assert done.stdout.count("was killed with SIGKILL") == 1
    assert done.stdout.count("agent instance ") == 2, "the first time of each question is shown"
    assert processes(mark) == []
    prefix = prefix_in(done.stdout)
    assert await partitions_at(url, prefix) == 0
    assert await leftovers(url, prefix) == []


@BROKERS
def test_json(broker: str, request: pytest.FixtureRequest, folder: Path, mark: str) -> None:
    done = demo(request.getfixturevalue(broker), "--json", cwd=folder, mark=mark)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"]
    assert document["problems"] == []
    assert document["files"] == ["animals.md", "cats.txt"]
    count = document["count"]
    assert count["put"] == count["settled"] == sum(agent["put"] for agent in document["agents"])
    assert [count[name] for name in ("dead_lettered", "lost", "doubled", "out_of_order", "unexpected")] == [
        0
    ] * 5
    assert count["put"] == document["rounds"] * (2 * (2 + 5) + 3)
    (killed,) = [worker for worker in document["workers"] if worker["killed"]]
    (other,) = [worker for worker in document["workers"] if not worker["killed"]]
    kill = document["kill"]
    assert killed["name"] == kill["worker"]
    assert 0 < kill["effects"] < count["put"], "that was in the middle"
    # What it settled after it was asked the last time is in neither figure.
    assert killed["settled"] + other["settled"] <= count["put"]
    (answer,) = document["answers"]
    (trace,) = document["traces"]
    assert (answer["question"], answer["instance_id"]) == (BARK, trace["instance_id"])
    assert trace["status"] == "complete"
    assert [child["schema_name"] for child in trace["spans"][0]["children"]].count("agent:read") == 2
    timing = document["timing"]
    assert 0 < timing["span_median"] <= timing["span_p99"] < timing["telemetry"] < timing["working"]
    assert processes(mark) == []


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_away_is_told_in_one_line(scheme: str, folder: Path, mark: str) -> None:
    port = free_port()
    done = demo(f"{scheme}://user:secret@127.0.0.1:{port}", cwd=folder, mark=mark)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("prefactor-worker: the broker cannot be used: ")
    assert str(port) in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["memory://"], "the transport is no broker"),
        (["redis://localhost?lease=soon"], "lease"),
        (["carrier-pigeon://loft"], "carrier-pigeon"),
        (["redis://localhost", "--api-url", "http://127.0.0.1:9"], "leave --api-url"),
    ],
)
def test_a_mistake_is_told_in_one_line(folder: Path, mark: str, arguments: list[str], words: str) -> None:
    done = demo(*arguments, cwd=folder, mark=mark)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("stop", "status", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by a signal")],
)
def test_a_signal_ends_everything(
    redis_url: str, folder: Path, mark: str, stop: signal.Signals, status: int, words: str
) -> None:
    with running(redis_url, cwd=folder, mark=mark) as process:
        prefix = prefix_in("".join(lines_until(process, "effects")))
        assert len(processes(mark, "agent_program")) == 2
        assert len(processes(mark, "prefactor_worker run")) == 2
        assert redis_keys(redis_url, prefix)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (status, f"prefactor-worker: {words}\n")
    assert processes(mark) == []
    assert redis_keys(redis_url, prefix) == []


def test_a_second_ctrl_c_leaves_no_process_either(redis_url: str, folder: Path, mark: str) -> None:
    with running(redis_url, cwd=folder, mark=mark) as process:
        lines_until(process, "effects")
        frozen = processes(mark, "prefactor_worker run")
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "it waits for its workers"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130
    assert processes(mark) == []


@pytest.mark.parametrize(
    ("command", "name"), [("agent_program", "agent"), ("prefactor_worker run", "worker")]
)
def test_a_process_that_fails_is_told_in_one_line(
    redis_url: str, folder: Path, mark: str, command: str, name: str
) -> None:
    with running(redis_url, cwd=folder, mark=mark) as process:
        lines_until(process, "effects")
        os.kill(processes(mark, command)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert re.fullmatch(rf"prefactor-worker: {name} \d was ended by SIGKILL\n", errors)
    assert processes(mark) == []


async def test_a_prefix_of_ones_own_is_left_as_it_is(
    redis_server: RedisServer, folder: Path, mark: str
) -> None:
    url = f"{redis_server.url}?prefix=mine&partitions=4"
    done = demo(url, cwd=folder, mark=mark)
    assert done.returncode == 0, done.stderr
    assert COUNT.fullmatch(done.stdout.splitlines()[-1])
    assert redis_keys(redis_server.url, "") == [b"{mine}:partitions"]

    queue = queue_at(url)
    await queue.put(register("i"))
    assert await queue.flush(10)
    done = demo(url, cwd=folder, mark=mark)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is in use" in done.stderr
    assert done.stderr.count("\n") == 1
    assert await queue.depth() == 1, "the demo has not taken it"
    await queue.disconnect()


def test_the_page_is_kept_when_all_else_is_gone(redis_url: str, folder: Path, mark: str) -> None:
    with running(redis_url, "--json", "--keep", cwd=folder, mark=mark) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split(" until ")[0].split()[-1]
        assert "Document reader" in httpx.get(url, timeout=10).text
        assert len(processes(mark)) == 2, "the demo and the emulator"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
        document = json.loads(output)
        assert (process.returncode, document["ok"]) == (0, True)
        assert redis_keys(redis_url, prefix_in(document["transport"])) == []
    assert processes(mark) == []


# -- what is decided, checked and shown


def test_the_url_goes_before_what_the_demo_would_choose() -> None:
    own = place_at("redis://localhost/0?lease=9")
    assert own.own
    assert re.fullmatch(r"redis://localhost/0\?lease=9&prefix=prefactor-demo-\w{8}&partitions=8", own.url)
    assert place_at("redis://localhost/0").url != place_at("redis://localhost/0").url
    assert place_at("redis://localhost?prefix=a").url == "redis://localhost?prefix=a&lease=3"
    assert not place_at("redis://localhost?prefix=a").own
    assert place_at("amqps://h/v?prefix=a").url == "amqps://h/v?prefix=a&heartbeat=3"


@pytest.mark.parametrize(("questions", "files"), [(1, 1), (2, 3), (4, 80), (1, 200), (100, 200)])
def test_every_load_has_a_middle_and_every_question_a_first_time(questions: int, files: int) -> None:
    asked = [f"Question {number}?" for number in range(questions)]
    plan = plan_for(asked, files, 2)
    assert plan.instances >= INSTANCES
    assert plan.instances * (2 * (files + 5) + 3) >= OPERATIONS
    shares = [plan.share(0), plan.share(1)]
    assert sorted(shares[0] + shares[1]) == sorted(asked * plan.rounds)
    runs = [[AgentRun(question, f"{process}") for question in share] for process, share in enumerate(shares)]
    assert [run.question for run in plan.first_round(runs)] == asked


def a_look() -> FleetLook:
    return FleetLook(
        seconds=2.0,
        agents=[AgentLook("agent 1", 4, Progress(answered=1, put=30, confirmed=20))],
        workers=[
            WorkerLook("worker 1", 11, WorkerFigures(settled=7, held=2, owned=4), killed=True),
            WorkerLook("worker 2", 12, WorkerFigures(settled=9, held=0, owned=4), killed=False),
        ],
        waiting=4,
        effects=16,
    )


def an_outcome(count: Count, *, left: int = 0, dead: int = 0) -> FleetOutcome:
    return FleetOutcome(
        transport="redis://there",
        warnings=[],
        api_url="http://here",
        documents=Documents(),
        result=FleetResult(
            runs=[],
            rounds=1,
            summaries=[CloseSummary(put=30, delivered=30 - left, left=left)],
            kill=Kill("worker 1", 11, 7, 2, 16, 30),
            last=a_look(),
            dead_letters=dead,
            count=count,
            cost=TelemetryCost.of([0.1], 0.1),
            working=1.0,
        ),
        traces=[],
        requests=3,
    )


def test_whatever_is_not_right_is_a_problem() -> None:
    good = an_outcome(Count(30, 0, 0, 0, 0))
    assert good.problems == []
    assert count_line(good) == "put 30, settled 26, lost 0, doubled 0, out of order 0"
    for wrong in (Count(30, 1, 0, 0, 0), Count(30, 0, 1, 0, 0), Count(30, 0, 0, 1, 0), Count(30, 0, 0, 0, 1)):
        (problem,) = an_outcome(wrong).problems
        assert re.fullmatch(r"\d lost, \d doubled, \d out of order, \d unexpected", problem)
    (left,) = an_outcome(Count(30, 0, 0, 0, 0), left=2).problems
    assert left == "the broker has confirmed 28 of 30 operations: 0 dropped, 2 left"
    assert an_outcome(Count(29, 0, 0, 0, 0)).problems == [
        "the agents put 30 operations, and 29 were written down"
    ]
    assert "3 dead letters at the broker" in an_outcome(Count(30, 3, 0, 0, 0), dead=3).problems


def test_a_terminal_gets_a_table_that_changes() -> None:
    printed = io.StringIO()
    view = console_view(Console(file=printed, force_terminal=True, width=100))
    assert isinstance(view, LiveView)
    with view:
        view.event("worker 1 was killed")
        view.show(a_look())
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.getvalue())
    for words in (
        "worker 1 was killed",
        "1 of 4 questions, put 30, 20 at the broker",
        "settled 7, killed",
        "settled 9, holds 0, owns 4 partitions",
        "4 waiting",
        "16 effects",
    ):
        assert words in text, words
