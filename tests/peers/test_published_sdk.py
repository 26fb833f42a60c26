"""The published Python SDK and its LangChain integration, both as they are, against the emulator."""

from pathlib import Path
from typing import Any, Final

import pytest

from tests.peers.looking import (
    PROGRAMS,
    effects,
    happened_once,
    instance,
    of_the_api,
    report_of,
    serving,
    spans_of,
    the_instance,
)
from tests.published.story import outline
from tests.support.installing import python_with

SDK: Final = "0.5.3"
INTEGRATION: Final = "0.3.0"
WORK: Final = [
    "agent:task complete",
    "  agent:task complete",
    "    agent:tool complete",
    *["  agent:tool complete"] * 5,
]


@pytest.fixture(scope="session")
def python() -> Path:
    """Return a Python that has the published packages, and none of this project's."""
    return python_with(
        f"python-{SDK}",
        f"prefactor-core=={SDK}",
        "prefactor-http==0.4.3",
        f"prefactor-langchain=={INTEGRATION}",
        "langchain>=1.3,<2",
    )


def seen_by(python: Path, program: str, *arguments: str, cwd: Path) -> dict[str, Any]:
    """Run a program of ours under the published packages, and return its report."""
    seen: dict[str, Any] = report_of(python, "-I", PROGRAMS / program, *arguments, cwd=cwd)
    return seen


def test_a_run_is_stored_whole(python: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by(python, "core_sdk.py", url, "work", cwd=tmp_path)
        stored = instance(url, seen["instance"])
        details = of_the_api(url, f"agent_instance/{seen['instance']}")["details"]
        query = f"agent_instance_id={seen['instance']}&include_summaries=true"
        listed = of_the_api(url, f"agent_spans?{query}")["summaries"]
        assert happened_once(effects(url))
    assert seen["version"] == SDK
    assert "closing" not in seen
    assert stored["status"] == details["status"] == "complete"
    assert (details["purpose"], details["external_identifier"]) == ("eval", "march")
    assert stored["started_at"] <= stored["finished_at"]
    assert outline(stored["spans"]) == WORK
    spans = {span["id"]: span for span in stored["spans"]}
    task, look, tool = (spans[seen[name]] for name in ("task", "look", "tool"))
    assert (task["payload"], task["result_payload"]) == ({"task": "close the books"}, {"closed": True})
    assert (look["payload"], look["result_payload"]) == ({"task": "look"}, {"open": 2})
    assert (tool["payload"], tool["result_payload"]) == ({"name": "ledger"}, {"found": 2})
    assert {span["summary"] for span in listed if span["id"] == tool["id"]} == {"ledger: 2"}
    found = {span["payload"]["name"]: span["result_payload"] for span in spans_of(stored, "agent:tool")}
    assert found == {f"bank {number}": {"found": number} for number in range(5)} | {"ledger": {"found": 2}}


def test_a_run_survives_what_happens_on_the_way(python: Path, tmp_path: Path) -> None:
    faults = ("lost-reply:count=4", "error:status=503,count=4", "away:count=2", "latency:ms=5,jitter_ms=20")
    with serving(*(option for fault in faults for option in ("--fault", fault))) as url:
        seen = seen_by(python, "core_sdk.py", url, "work", cwd=tmp_path)
        stored = the_instance(url)
        assert happened_once(effects(url))
    assert (stored["id"], stored["status"]) == (seen["instance"], "complete")
    assert outline(stored["spans"]) == WORK


def test_spans_end_in_every_way(python: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by(python, "core_sdk.py", url, "fail", cwd=tmp_path)
        stored = instance(url, seen["instance"])
    assert stored["status"] == "failed"
    ended = {span["payload"].get("ends"): span for span in stored["spans"]}
    assert ended["failed"]["status"] == "failed"
    assert ended["failed"]["result_payload"] == {"error": "no paper"}
    assert ended["cancelled"]["status"] == "cancelled"
    assert ended["by hand"]["status"] == "complete"
    assert ended["by hand"]["result_payload"] == {"written": True}
    assert ended["with an exception"]["status"] in {"complete", "failed"}
    (unbegun,) = [span for span in stored["spans"] if span["started_at"] is None]
    assert unbegun["status"] == "cancelled"
    assert len(stored["spans"]) == 5


def test_qualities_are_recorded_and_removed(python: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by(python, "core_sdk.py", url, "judge", cwd=tmp_path)
        details = of_the_api(url, f"agent_instance/{seen['instance']}")["details"]
    assert details["id"] == "01jz0000000000000000000000000001"
    assert details["status"] == "cancelled"
    assert details["quality_payloads"] == {"accuracy": {"right": 7}}


def test_a_terminated_run_stays_terminated(python: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by(python, "core_sdk.py", url, "be stopped", cwd=tmp_path)
        stored = instance(url, seen["instance"])
    assert seen["closing"] == "PrefactorTelemetryFailureError"  # which this SDK makes of a refused finish
    assert (stored["status"], stored["termination_reason"]) == ("terminated", "too costly")
    first, second = spans_of(stored, "agent:task")
    assert first["payload"] == {"task": "first"}
    assert first["status"] in {"complete", "failed", "cancelled"}
    assert first["result_payload"] is None
    assert second["payload"] == {"task": "second"}


def test_a_token_that_is_not_known_is_refused(python: Path, tmp_path: Path) -> None:
    with serving("--token", "another") as url:
        seen = seen_by(python, "core_sdk.py", url, "work", cwd=tmp_path)
        assert effects(url) == []
    assert seen["refusal"].startswith("PrefactorAuthError ")


def test_an_agent_is_recorded_by_its_middleware(python: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by(python, "langchain_agent.py", url, "well", cwd=tmp_path)
        stored = the_instance(url)
        assert happened_once(effects(url))
    assert (seen["prefactor-core"], seen["prefactor-langchain"]) == (SDK, INTEGRATION)
    assert seen["answer"] == "Tea and cake are 7.75 together."
    assert "closing" not in seen
    assert stored["status"] == "complete"
    names = sorted(span["schema_name"] for span in stored["spans"])
    assert names == [
        "langchain:agent",
        *["langchain:llm"] * 3,
        *["langchain:tool"] * 2,
        "langchain:tool:total",
    ]
    assert {span["status"] for span in stored["spans"]} == {"complete"}
    (total,) = spans_of(stored, "langchain:tool:total")
    assert total["payload"]["inputs"] == {"prices": [3.5, 4.25]}
    assert total["result_payload"] == {"outputs": {"output": "7.75"}}
    prices = {span["result_payload"]["outputs"]["output"] for span in spans_of(stored, "langchain:tool")}
    assert prices == {"3.5", "4.25"}


def test_a_tool_that_fails_is_recorded_as_failed(python: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by(python, "langchain_agent.py", url, "broken", cwd=tmp_path)
        stored = the_instance(url)
    assert seen["raised"].startswith("KeyError")
    assert "failed" in {span["status"] for span in spans_of(stored, "langchain:tool")}
    assert spans_of(stored, "langchain:tool:total") == []


def test_an_agent_stops_at_the_signal(python: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by(python, "langchain_agent.py", url, "stopped", cwd=tmp_path)
        stored = the_instance(url)
    assert seen["raised"].startswith("PrefactorTerminatedError")
    assert "too costly" in seen["raised"]
    assert (stored["status"], stored["termination_reason"]) == ("terminated", "too costly")
    assert len(spans_of(stored, "langchain:tool")) == 2
    assert spans_of(stored, "langchain:tool:total") == []
    (agent,) = spans_of(stored, "langchain:agent")
    assert agent["result_payload"] is None, "it was closed by the service"
