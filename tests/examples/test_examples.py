"""Every example runs as its reader runs it: as a process of its own, against an emulator in another."""

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.published.story import check_order, outline
from tests.support.emulator import Emulator, running_emulator
from tests.support.processes import complaints

EXAMPLES = Path(__file__).parents[2] / "examples"
_RUN_SECONDS = 40.0


@asynccontextmanager
async def started(emulator: Emulator, name: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start an example, with warnings as errors; in the end it is gone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFACTOR_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-Werror", str(EXAMPLES / name)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, "PREFACTOR_API_URL": emulator.url, **more},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run_example(emulator: Emulator, name: str) -> list[str]:
    """Run an example to its end, and return what it printed."""
    async with started(emulator, name) as process, asyncio.timeout(_RUN_SECONDS):
        output, errors = await process.communicate()
    assert (process.returncode, complaints(errors.decode())) == (0, [])
    return output.decode().splitlines()


async def instances_of(emulator: Emulator) -> list[dict[str, Any]]:
    """Return all instances in the order of their registration, each checked for the order of its effects."""
    effects = await emulator.effects()
    assert len({effect["key"] for effect in effects}) == len(effects)
    found = []
    for instance_id in dict.fromkeys(effect["instance_id"] for effect in effects):
        found.append(await emulator.instance(instance_id))
        check_order(effects, found[-1])
    return found


async def test_plain_agent(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        assert await run_example(emulator, "plain_agent.py") == [
            "Where to, Oslo, Lisbon or Atlantis? -> Oslo: snow; Lisbon: sun",
            "And Ys? -> no answer: Ys",
            "20 of 20 operations delivered",
        ]
        lucky, unlucky = await instances_of(emulator)
    assert (lucky["status"], unlucky["status"]) == ("complete", "failed")
    assert outline(lucky["spans"]) == [
        "agent:answer complete",
        "  agent:llm complete",
        "  tool:weather complete",
        "  tool:weather complete",
        "  tool:weather failed",
    ]
    assert outline(unlucky["spans"]) == ["agent:answer failed", "  tool:weather failed"]
    failed = next(span for span in lucky["spans"] if span["status"] == "failed")
    assert failed["result_payload"] == {"error": {"type": "__main__.NoSuchCityError", "message": "Atlantis"}}
    answer = next(span for span in lucky["spans"] if span["schema_name"] == "agent:answer")
    assert answer["result_payload"] == {"answer": "Oslo: snow; Lisbon: sun", "unknown": 1}


async def test_langchain_agent(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        assert await run_example(emulator, "langchain_agent.py") == ["Tea and cake are 7.75 together."]
        (instance,) = await instances_of(emulator)
    assert instance["status"] == "complete"
    assert Counter(outline(instance["spans"])) == {
        "langchain:agent complete": 1,
        "langchain:llm complete": 3,
        "langchain:tool complete": 2,
        "langchain:tool:total complete": 1,
    }
    outputs = [
        span["result_payload"]["outputs"]["output"]
        for span in instance["spans"]
        if span["schema_name"].startswith("langchain:tool")
    ]
    assert sorted(outputs) == ["3.5", "4.25", "7.75"]


async def test_batch(tmp_path: Path) -> None:
    async with running_emulator(tmp_path) as emulator:
        first, second = await run_example(emulator, "batch.py")
        assert re.fullmatch(r"1000 documents, 100 unreadable, in [\d.]+ s", first)
        complete = "put=5000, delivered=5000, dead_lettered=0, dropped={}, left=0, unconfirmed=0, overtaken=0"
        assert second == f"CloseSummary({complete}, superseded={{}})"
        effects = await emulator.effects()
        found = {
            instance["external_identifier"]: instance
            for instance in await asyncio.gather(*(emulator.instance(each) for each in _sample(effects)))
        }
    assert Counter(effect["type"] for effect in effects) == dict.fromkeys(
        [
            "agent_instances/register",
            "agent_instances/start",
            "agent_spans/create",
            "agent_spans/finish",
            "agent_instances/finish",
        ],
        1000,
    )
    by_instance: dict[str, list[str]] = {}
    for effect in effects:
        by_instance.setdefault(effect["instance_id"], []).append(effect["type"])
    assert len(by_instance) == 1000
    assert len({tuple(types) for types in by_instance.values()}) == 1, "all in the same order"
    for name, instance in found.items():
        check_order(effects, instance)
        failed = int(name.rpartition("-")[2]) % 10 == 0
        status = "failed" if failed else "complete"
        assert (instance["status"], outline(instance["spans"])) == (status, [f"batch:classify {status}"])
    assert {instance["status"] for instance in found.values()} == {"complete", "failed"}


def _sample(effects: list[dict[str, Any]]) -> list[str]:
    """Return twenty neighbours: two of them unreadable."""
    ids = [effect["instance_id"] for effect in effects if effect["type"] == "agent_instances/register"]
    return ids[500:520]


async def test_fastapi_service(tmp_path: Path) -> None:
    texts = [f"Begin {number}. Middle. End." for number in range(20)]
    async with running_emulator(tmp_path) as emulator:
        async with started(emulator, "fastapi_service.py", PORT="0") as process:
            assert process.stderr is not None
            address = None
            async with asyncio.timeout(_RUN_SECONDS):
                while address is None:
                    line = (await process.stderr.readline()).decode()
                    assert line, "the service ended before it listened"
                    address = re.search(r"running on (http://\S+)", line)
            url = address[1]
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
                replies = await asyncio.gather(
                    *(http.post("/summaries", json={"text": text}) for text in texts),
                    http.post("/summaries", json={"text": "..."}),
                )
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(_RUN_SECONDS):
                _, errors = await process.communicate()
            assert "Application shutdown complete" in errors.decode()
            assert "WARNING" not in errors.decode()
        instances = {instance["id"]: instance for instance in await instances_of(emulator)}
    assert [reply.status_code for reply in replies] == [*[200] * 20, 422]
    assert len(instances) == 21
    for number, reply in enumerate(replies[:-1]):
        summary = reply.json()
        assert summary["summary"] == f"Begin {number} ... End."
        instance = instances.pop(summary["instance_id"])
        assert instance["status"] == "complete"
        assert outline(instance["spans"]) == ["service:llm complete", "service:split complete"]
        (result,) = (s["result_payload"] for s in instance["spans"] if s["schema_name"] == "service:llm")
        assert result == {"summary": summary["summary"]}
    (refused,) = instances.values()
    assert (refused["status"], outline(refused["spans"])) == ("failed", ["service:split failed"])


def test_every_example_is_in_the_readme_and_has_a_test() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    named = re.findall(r"^\| \[`(\w+\.\w+)`\]\((\w+\.\w+)\)", readme, re.MULTILINE)
    paths = sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")])
    assert sorted(named) == [(path.name, path.name) for path in paths]
    modules = "".join(module.read_text() for module in Path(__file__).parent.glob("test_*.py"))
    assert [path.stem for path in paths if f"def test_{path.stem}" not in modules] == []
