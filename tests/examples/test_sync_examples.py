"""The examples without an event loop run as their readers run them, in processes that end in their own ways.

Flask, gunicorn, Celery and Jupyter are installed once, in an environment of their own.
"""

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.examples.test_examples import EXAMPLES, instances_of, run_example
from tests.published.story import outline
from tests.support.emulator import Emulator, running_emulator
from tests.support.fleet import until
from tests.support.installing import python_with
from tests.support.processes import complaints

DEADLINE: Final = 120.0
TEXT, SUMMARY, EMPTY = "One. Two. Three.", "One ... Three.", "..."
WHOLE = 7
"""The operations of a text that is summarised."""
FAILED = 5
"""Those of one that is empty."""
SLOW: Final = ("--fault", "latency:ms=1500")
"""An API so slow that a process ends with operations undelivered, if its end does not wait for them."""


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the programs of an environment that has this SDK, and what the examples are for."""
    return python_with(
        "services",
        "--editable",
        str(EXAMPLES.parent),
        "flask==3.1.3",
        "gunicorn==27.0.1",
        "celery[redis]==5.7.0",
        "ipykernel==7.4.0",
        "nbclient==0.11.0",
    ).parent


@asynccontextmanager
async def program(
    log: Path, url: str, *command: str | Path, **more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a program in the folder of examples; its errors go to a file. In the end it is gone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFACTOR_")}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=EXAMPLES,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**kept, "PREFACTOR_API_URL": url, **more},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # its children, too: it leads a group of its own
            await process.wait()


async def output_of(log: Path, url: str, *command: str | Path, **more: str) -> str:
    """Run a program to its end, which has to be a good one, and return what it printed."""
    async with program(log, url, *command, **more) as process, asyncio.timeout(DEADLINE):
        output, _ = await process.communicate()
    check_status(process, log)
    return output.decode()


async def until_or_ended(process: asyncio.subprocess.Process, condition: Callable[[], object]) -> None:
    """Wait for a condition, or for the end of the program, which then fails for another reason."""
    await until(lambda: condition() or process.returncode is not None, DEADLINE)


def check_status(process: asyncio.subprocess.Process, log: Path) -> None:
    """Check that a program has ended well; otherwise show what it said."""
    assert process.returncode == 0, log.read_text()


async def delivered(emulator: Emulator) -> list[dict[str, Any]]:
    """Return what the emulator has of every instance; each is whole, and nothing happened twice."""
    instances = await instances_of(emulator)
    puts = sum(3 + 2 * len(instance["spans"]) for instance in instances)
    assert len(await emulator.effects()) == puts
    return instances


def check_summaries(instances: list[dict[str, Any]], prefix: str, good: int, empty: int) -> None:
    """Check that there are as many instances of either kind as there were texts."""
    assert Counter((one["status"], *outline(one["spans"])) for one in instances) == Counter(
        {
            ("complete", f"{prefix}:llm complete", f"{prefix}:split complete"): good,
            ("failed", f"{prefix}:split failed"): empty,
        }
    )
    spans = [span for one in instances for span in one["spans"]]
    results = [span["result_payload"] for span in spans if span["schema_name"] == f"{prefix}:llm"]
    assert results == [{"summary": SUMMARY}] * good


# -- a script


async def test_script_delivers_as_it_exits_and_names_parents_in_other_threads(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, *SLOW) as emulator:
        assert await run_example(emulator, "script.py") == ["Tea and cake are 7.75 together."]
        (instance,) = await delivered(emulator)
    assert instance["status"] == "complete"
    assert outline(instance["spans"]) == [
        "script:order complete",
        "  script:llm complete",
        "  script:price complete",
        "  script:price complete",
    ]
    assert {
        span["payload"]["article"]: span["result_payload"]["price"]
        for span in instance["spans"]
        if span["schema_name"] == "script:price"
    } == {"tea": 3.5, "cake": 4.25}


# -- a notebook


Cells = list[dict[str, Any]]


def once(cells: Cells) -> Cells:
    return cells


def without_its_last_cell(cells: Cells) -> Cells:
    return cells[:-1]


def run_again(cells: Cells) -> Cells:
    """Run everything twice in the same kernel; the second time, a client is there already."""
    return cells[:-1] + cells


@pytest.mark.parametrize(("run", "times"), [(once, 1), (without_its_last_cell, 1), (run_again, 2)])
async def test_notebook_has_spans_over_cells_and_delivers_whatever_its_end(
    programs: Path, tmp_path: Path, run: Callable[[Cells], Cells], times: int
) -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    notebook["cells"] = [{**cell, "id": f"{n}"} for n, cell in enumerate(run(notebook["cells"]))]
    copy = tmp_path / "copy.ipynb"
    copy.write_text(json.dumps(notebook))
    async with running_emulator(tmp_path) as emulator:
        jupyter = (programs / "jupyter", "execute", "--inplace", copy)
        own = {name: str(tmp_path / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        await output_of(tmp_path / "log", emulator.url, *jupyter, PATH=path, **own)
        instances = await delivered(emulator)
    assert len(instances) == times
    for instance in instances:
        assert instance["status"] == "complete"
        assert outline(instance["spans"]) == [
            "notebook:question complete",
            "  notebook:llm complete",
            "  notebook:llm complete",
        ]
        (question,) = (span for span in instance["spans"] if span["parent_span_id"] is None)
        assert question["result_payload"] == {"answer": "Tea is a drink, cake is a dish."}
    if run is once:
        *_, flushed, closed = (
            cell["outputs"] for cell in json.loads(copy.read_text())["cells"] if cell["cell_type"] == "code"
        )
        assert flushed[0]["data"]["text/plain"] == ["True"]
        assert "put=9, delivered=9" in closed[0]["data"]["text/plain"][0]


# -- Flask

USE: Final = f"""
from flask_service import app

for text in {[TEXT] * 3 + [EMPTY]}:
    reply = app.test_client().post("/summaries", json={{"text": text}})
    print(reply.status_code, reply.get_json(silent=True))
"""


async def test_flask_service_delivers_as_a_process_exits_that_called_its_test_client(
    programs: Path, tmp_path: Path
) -> None:
    async with running_emulator(tmp_path, *SLOW) as emulator:
        log = tmp_path / "log"
        said = await output_of(log, emulator.url, programs / "python", "-Werror", "-c", USE)
        assert complaints(log.read_text()) == []
        instances = await delivered(emulator)
    assert [line.split()[0] for line in said.splitlines()] == ["200", "200", "200", "422"]
    check_summaries(instances, "service", 3, 1)
    assert {one["id"] for one in instances if one["status"] == "complete"} == set(
        re.findall(r"'instance_id': '(\w+)'", said)
    )


@pytest.mark.parametrize("threads", [(), ("--threads", "4")])
@pytest.mark.parametrize("preload", [(), ("--preload",)])
async def test_flask_service_under_gunicorn_delivers_everything_of_every_worker_at_its_end(
    programs: Path, tmp_path: Path, preload: tuple[str, ...], threads: tuple[str, ...]
) -> None:
    log = tmp_path / "log"
    own = ("--bind", "127.0.0.1:0", "--no-control-socket", "--workers", "2", *threads, *preload)
    access = ("--access-logfile", "-", "--access-logformat", "worker %(p)s")  # to stdout
    command = (str(programs / "gunicorn"), *own, *access, "flask_service:app")
    async with running_emulator(tmp_path, *SLOW) as emulator:
        async with program(log, emulator.url, *command) as gunicorn:
            assert gunicorn.stdout is not None
            await until_or_ended(gunicorn, lambda: _address(log))
            url = _address(log)
            workers: set[str] = set()
            good = empty = 0
            async with asyncio.timeout(DEADLINE):
                while len(workers) < 2:  # whichever takes a connection first has it
                    replies = await asyncio.gather(*(post(url, text) for text in [TEXT] * 10 + [EMPTY]))
                    assert replies == [200] * 10 + [422]
                    good, empty = good + 10, empty + 1
                    for _ in replies:
                        workers.add((await gunicorn.stdout.readline()).decode())
            gunicorn.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                await gunicorn.communicate()
        instances = await delivered(emulator)
    check_status(gunicorn, log)
    assert not re.search(r"ERROR|WARNING|Traceback|closed with|undelivered", log.read_text()), log.read_text()
    check_summaries(instances, "service", good, empty)


async def post(url: str, text: str) -> int:
    """Send one text by a connection of its own, and return the status of the reply."""
    async with httpx.AsyncClient(base_url=url, timeout=DEADLINE, trust_env=False) as http:
        reply = await http.post("/summaries", json={"text": text})
    if reply.status_code == 200:
        assert reply.json()["summary"] == SUMMARY
    return reply.status_code


def _address(log: Path) -> str:
    """Return where gunicorn listens, or nothing as long as it does not say so."""
    said = re.search(r"Listening at: (http://\S+)", log.read_text())
    return said[1] if said else ""


# -- Celery

SEND: Final = f"""
import sys
from celery_tasks import app, summarise

app.conf.broker_transport_options = {{"global_keyprefix": sys.argv[1]}}
for text in {[TEXT] * 10 + [EMPTY]}:
    summarise.delay(text)
"""


@pytest.mark.parametrize(
    ("children", "pool"),
    [(2, ()), (3, ("--max-tasks-per-child", "4")), (1, ("--pool", "threads"))],
    ids=["two children", "replaced children", "threads"],
)
async def test_celery_tasks_are_delivered_after_the_warm_shutdown_of_their_worker(
    programs: Path, tmp_path: Path, redis_url: str, redis_prefix: str, children: int, pool: tuple[str, ...]
) -> None:
    log = tmp_path / "log"
    command = [str(programs / "celery"), "--app", "celery_tasks", "worker", "--loglevel", "info"]
    command += ["--concurrency", "2", *pool, "--without-mingle", "--without-gossip"]
    # All of its names at the broker are its own.
    own = json.dumps({"global_keyprefix": redis_prefix})
    command += ["--", f"broker.transport_options=(json){own}"]
    more = {"CELERY_BROKER_URL": redis_url}
    good = empty = 0
    async with running_emulator(tmp_path, *SLOW) as emulator:
        async with program(log, emulator.url, *command, **more) as worker:
            while len(_done(log)) < children:  # they take tasks as they like
                send = (programs / "python", "-Werror", "-c", SEND, redis_prefix)
                await output_of(tmp_path / "sender", emulator.url, *send, **more)
                good, empty = good + 10, empty + 1
                await until_or_ended(worker, partial(_have_done, log, good + empty))
            worker.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                output, _ = await worker.communicate()
        instances = await delivered(emulator)
    check_status(worker, log)
    assert "Warm shutdown" in output.decode()
    assert not re.search(r"CRITICAL|closed with|undelivered", log.read_text()), log.read_text()
    check_summaries(instances, "task", good, empty)


def _done(log: Path) -> Counter[str]:
    """Return how many tasks each child has done; threads have the name of their process."""
    done = re.findall(r"INFO/(\S+)\] Task \S+ succeeded|ERROR/(\S+)\] Task \S+ raised", log.read_text())
    return Counter(one or other for one, other in done)


def _have_done(log: Path, count: int) -> bool:
    return _done(log).total() >= count


# -- Lambda

RUNTIME: Final = """
import json, sys, lambda_handler

lambda_handler.FLUSH_SECONDS = float(sys.argv[1])
for line in sys.stdin:
    try:
        print(json.dumps(lambda_handler.handler(json.loads(line), None)), flush=True)
    except ValueError as error:
        print(json.dumps(str(error)), flush=True)
"""
"""What Lambda does with a handler, but for the freezing; with a bound for the flush."""


@asynccontextmanager
async def function(log: Path, url: str, flush: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the function; in the end it is killed, as Lambda does."""
    async with program(log, url, sys.executable, "-Werror", "-c", RUNTIME, f"{flush}") as process:
        yield process
    assert process.returncode == -signal.SIGKILL


async def invoke(process: asyncio.subprocess.Process, text: str) -> list[str]:
    """Have the function answer an event, and return what it prints; its answer is the last line."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"text": text}).encode() + b"\n")
    said: list[str] = []
    async with asyncio.timeout(DEADLINE):
        while not (said and said[-1][0] in '{"'):
            line = await process.stdout.readline()
            assert line, "the function has ended"
            said.append(line.decode().strip())
    return said


async def test_lambda_handler_has_delivered_when_it_returns_and_survives_being_frozen(tmp_path: Path) -> None:
    log, answer = tmp_path / "log", json.dumps({"summary": SUMMARY})
    async with running_emulator(tmp_path, "--fault", "latency:ms=200") as emulator:
        async with function(log, emulator.url, DEADLINE) as process:
            for number in range(1, 5):
                assert await invoke(process, TEXT) == [answer]
                process.send_signal(signal.SIGSTOP)
                assert len(await emulator.effects()) == number * WHOLE
                process.send_signal(signal.SIGCONT)
            assert await invoke(process, EMPTY) == ['"there is no sentence in this text"']
            process.send_signal(signal.SIGSTOP)
            assert len(await emulator.effects()) == 4 * WHOLE + FAILED
        check_summaries(await delivered(emulator), "lambda", 4, 1)
    assert log.read_text() == ""


async def test_lambda_handler_answers_while_the_api_is_away_and_delivers_later(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        await emulator.kill()
        async with function(tmp_path / "log", emulator.url, 0.1) as process:
            for _ in range(3):
                late, answer = await invoke(process, TEXT)
                assert late.startswith("telemetry is late: ClientStats(")
                assert json.loads(answer) == {"summary": SUMMARY}
            await emulator.start()
            await until(lambda: _arrived(emulator, 3 * WHOLE), DEADLINE)
        check_summaries(await delivered(emulator), "lambda", 3, 0)


async def _arrived(emulator: Emulator, count: int) -> bool:
    return len(await emulator.effects()) >= count
