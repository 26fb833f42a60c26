"""The demo as it is used: processes on real files, in process and around real brokers."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from prefactor_core import PrefactorCoreConfig
from prefactor_core.plugins import create_queue
from tests.support.brokers.redis_server import RedisServer
from tests.support.fleet import until
from tests.support.operations import register
from tests.support.ports import free_port
from tests.support.processes import complaints

DEMO = Path(__file__).parents[2] / "examples" / "demo"
BARK = "When do dogs bark?"
PURR = "Why does a cat purr?"
NOTHING_WRONG = "lost 0, doubled 0, out of order 0, unexpected 0"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Documents, and where a demo has its temporary files: by this its processes can be told from others."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "animals.md").write_text("# Dogs\n\nAt night the dogs of the village\nbark at the moon.\n")
    (tmp_path / "deep" / "cats.py").write_text('"""Pets.\n\nA cat will purr because\nit is content.\n"""\n')
    (tmp_path / "broken.txt").write_bytes(b"dogs bark \xff\xfe")
    for name in ("0.txt", "1.txt", "2.txt", ".hidden.md"):
        (tmp_path / name).write_text("Nothing.")
    yield tmp_path
    left = processes(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == [], "the demo has left processes behind"


def processes(folder: Path, words: str = "") -> list[int]:
    """Return the processes of a demo that still run, those with some words in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            if (
                f"TMPDIR={folder}\0".encode() in (entry / "environ").read_bytes()
                and words.encode() in command
            ):
                found.append(int(entry.name))
    return found


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-Werror", str(DEMO), ".", "-q", BARK, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "120", "TMPDIR": str(cwd)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert [path.name for path in cwd.glob("prefactor-demo-*")] == [], "temporary files are gone"


def demo(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    with running(*arguments, cwd=cwd) as process:
        output, errors = process.communicate(timeout=200)
        return process.returncode, output, errors


def keys_at(url: str, prefix: str) -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        return list(client.scan_iter(match=f"*{prefix}*", count=1_000))


def prefix_of(worker: int) -> str:
    """Return the prefix that the demo of a running worker has taken."""
    found = re.search(rb"prefactor-demo-\w+", Path(f"/proc/{worker}/environ").read_bytes().split(b"_URL=")[1])
    assert found is not None
    return found[0].decode()


def has_been_told_to_end(pid: int) -> bool:
    """Return whether a stopped process has a SIGTERM waiting for it."""
    pending = re.findall(r"Pnd:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in pending)


def test_in_process(folder: Path) -> None:
    with running("-q", PURR, "--json", "--keep", cwd=folder) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split(" until ")[0].split()[-1]
        assert "Document reader" in httpx.get(url, timeout=60).text, "the page is kept"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(output)
    assert [(each["question"], each["sentences"][0]) for each in found["answers"]] == [
        (BARK, {"text": "At night the dogs of the village bark at the moon.", "source": "animals.md:3"}),
        (PURR, {"text": "A cat will purr because it is content.", "source": "deep/cats.py:3"}),
    ]
    assert (found["problems"], found["proof"]) == ([], f"put 46, took effect 46, {NOTHING_WRONG}")
    assert found["delivery"].pop("API requests") >= 1
    assert found["delivery"] == {
        "agents 1 put": 46,
        "delivered, or confirmed by the broker": 46,
        **dict.fromkeys(["dead-lettered", "dropped", "left"], 0),
        **{f"effects: agent_instances/{name}": 2 for name in ("register", "start", "finish")},
        **{f"effects: agent_spans/{name}": 20 for name in ("create", "finish")},
    }
    assert [run["id"] for run in found["runs"]] == [answer["instance_id"] for answer in found["answers"]]
    for run in found["runs"]:
        (root,) = run["spans"]
        steps = [f"{span['schema_name']} {span['status']}" for span in root["children"]]
        read = [*["tool:read complete"] * 4, "tool:read failed", "tool:read complete"]
        assert steps == ["llm:plan complete", *read, "tool:search complete", "llm:answer complete"]
        failed = root["children"][5]
        assert (run["status"], failed["payload"]) == ("complete", {"file": "broken.txt"})
        assert failed["result_payload"]["error"]["type"] == "UnicodeDecodeError"


@pytest.mark.parametrize("broker", ["redis_url", "amqp_url"])
def test_a_worker_is_killed_and_nothing_is_lost(
    broker: str, request: pytest.FixtureRequest, folder: Path
) -> None:
    url = request.getfixturevalue(broker)
    if broker == "redis_url":  # a database without the keys of other demos
        url = url.removesuffix("/0") + "/7"
    status, output, errors = demo("-q", PURR, "--transport", url, cwd=folder)
    assert (status, complaints(errors)) == (0, []), output[-3_000:]
    ((put, effects),) = re.findall(rf"\nput (\d+), took effect (\d+), {NOTHING_WRONG}\n$", output)
    assert int(put) == int(effects) >= 3_000
    for words in (
        r"worker 1 \(process \d+\) owns \d partitions",
        r"worker \d was killed with SIGKILL: it had settled \d+ operations and held \d+; \d+ of \d+ had",
        r"worker \d owns all 8 partitions now",
        r"worker \d settled \d+, killed; (worker|broker)",
        r"└── agent:run  complete .*When do dogs bark\?",
        r"    ├── tool:read  failed .*broken.txt",
        r"    ├── 2 more tool:read, complete",
        r"At night the dogs of the village bark at the moon\. \[animals.md:3\]",
        r"of it inside the SDK's calls",
    ):
        assert re.search(words, output), words
    assert (output.count("was killed with SIGKILL"), output.count("agent instance ")) == (1, 2)
    assert broker == "amqp_url" or keys_at(url, "prefactor-demo") == []


@pytest.mark.parametrize(
    ("victim", "stop", "status"),
    [
        ("demo . -q", signal.SIGTERM, 143),
        ("demo . -q", signal.SIGINT, 130),
        ("agents.py", signal.SIGKILL, 1),
        ("prefactor_worker run", signal.SIGKILL, 1),
    ],
)
async def test_every_end_leaves_nothing_behind(
    redis_url: str, folder: Path, victim: str, stop: signal.Signals, status: int
) -> None:
    with running("--transport", redis_url, cwd=folder) as process:
        assert process.stdout is not None
        assert any(re.search(r"API [1-9]\d* effects", line) for line in process.stdout), "it ended before"
        workers = processes(folder, "prefactor_worker run")
        assert len(processes(folder, "agents.py")) == len(workers) == 2
        assert keys_at(redis_url, prefix := prefix_of(workers[0]))
        if stop is signal.SIGINT:  # a second Ctrl-C, while it waits for workers that do not end
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
            process.send_signal(stop)
            await until(lambda: all(map(has_been_told_to_end, workers)))
        os.kill(processes(folder, victim)[0], stop)
        _, errors = process.communicate(timeout=180)
    told = r"scripts/demo: (agents|worker) \d ended by SIGKILL: .*\n" if stop is signal.SIGKILL else ""
    assert process.returncode == status
    assert re.fullmatch(told, errors), errors
    assert (processes(folder), keys_at(redis_url, prefix)) == ([], [])


async def test_a_problem_is_told_in_one_line(redis_server: RedisServer, folder: Path) -> None:
    queue = create_queue(f"{redis_server.url}?prefix=mine", PrefactorCoreConfig())
    await queue.put(register("i"))
    assert await queue.flush(10)
    await queue.disconnect()
    away = f"user:secret@127.0.0.1:{free_port()}"
    gone = "the broker cannot be used: .* cannot be reached"
    for url, words in (
        (f"redis://{away}", gone),
        (f"amqp://{away}", gone),
        ("memory://", "the transport is no broker"),
        ("carrier-pigeon://loft", "no transport for carrier-pigeon"),
        (f"{redis_server.url}?prefix=mine", "this prefix is in use: leave it out"),
    ):
        status, output, errors = demo("--transport", url, cwd=folder)
        assert re.fullmatch(f"scripts/demo: .*{words}.*\n", errors), errors
        assert status == 1, url
        assert "secret" not in output + errors, url
    status, _, errors = demo("nowhere", "--transport", "redis://127.0.0.1:1", cwd=folder)
    assert (status, errors.splitlines()[-1]) == (2, "scripts/demo: error: no such file or folder: nowhere")
