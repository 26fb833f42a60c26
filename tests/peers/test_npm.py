"""The published TypeScript SDK and its LangChain.js middleware, both as they are, against the emulator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.peers.looking import (
    PROGRAMS,
    effects,
    happened_once,
    of_the_api,
    report_of,
    serving,
    spans_of,
    the_instance,
)
from tests.published.story import outline
from tests.support.installing import node_program, node_with

ZOD: Final = {"zod": "4.1.12"}
PACKAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "0.2.9": {"@prefactor/core": "0.2.9"} | ZOD,
    "0.2.8": {"@prefactor/core": "0.2.8", "@prefactor/langchain": "0.2.8", "langchain": "1.5.14"} | ZOD,
}
NEWEST: Final = "0.2.9"
WITH_LANGCHAIN: Final = "0.2.8"


@pytest.fixture(scope="session", params=PACKAGES)
def modules(request: pytest.FixtureRequest) -> Path:
    """Return the modules of each version of the SDK."""
    return modules_of(request.param)


@pytest.fixture(scope="session")
def newest_modules() -> Path:
    return modules_of(NEWEST)


@pytest.fixture(scope="session")
def langchain_modules() -> Path:
    return modules_of(WITH_LANGCHAIN)


def modules_of(version: str) -> Path:
    return node_with(f"npm-{version}", PACKAGES[version])


def seen_by(program: str, modules: Path, url: str, scenario: str, folder: Path) -> dict[str, Any]:
    """Run a program of ours with modules, and return its report."""
    (folder / "node_modules").symlink_to(modules)
    copy = folder / program  # Node looks for packages from where the program is
    copy.write_text((PROGRAMS / program).read_text())
    seen: dict[str, Any] = report_of(node_program(), copy, url, scenario, cwd=folder)
    return seen


def test_a_run_is_stored_whole(modules: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen_by("core.mjs", modules, url, "work", tmp_path)
        stored = the_instance(url)
        details = of_the_api(url, f"agent_instance/{stored['id']}")["details"]
        assert happened_once(effects(url))
    assert stored["status"] == "complete"
    assert stored["agent_version"] == {
        "external_identifier": "books-1.0",
        "name": "Bookkeeper",
        "description": "Keeps the books",
    }
    assert outline(stored["spans"]) == [
        "agent complete",
        "  llm complete",
        "    tool complete",
        *["  tool complete"] * 5,
    ]
    assert details["span_counts"]["complete"] == details["span_counts"]["total"] == 8
    (task,) = spans_of(stored, "agent")
    assert task["payload"]["inputs"] == {"task": "close the books"}
    assert task["result_payload"] == {"closed": True}
    (asking,) = spans_of(stored, "llm")
    assert asking["payload"]["inputs"] == {"prompt": "What is open?"}
    assert asking["payload"]["token_usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
    }
    assert asking["result_payload"] == {"answer": "Two invoices"}
    look, *payments = sorted(
        spans_of(stored, "tool"), key=lambda span: "book" not in span["payload"]["inputs"]
    )
    assert (look["payload"]["metadata"], look["result_payload"]) == ({"page": 3}, {"open": 2})
    paid = {span["payload"]["inputs"]["invoice"]: span["result_payload"] for span in payments}
    assert paid == {number: {"paid": number} for number in range(5)}
    assert all(span["started_at"] <= span["finished_at"] for span in stored["spans"])


def test_a_run_survives_an_outage(modules: Path, tmp_path: Path) -> None:
    # No reply is lost: this SDK sends no keys, and would do twice what it has to repeat.
    faults = ("error:status=503,count=4", "throttle:count=2", "latency:ms=5,jitter_ms=20")
    with serving(*(option for fault in faults for option in ("--fault", fault))) as url:
        seen_by("core.mjs", modules, url, "work", tmp_path)
        stored = the_instance(url)
        assert happened_once(effects(url))
    assert stored["status"] == "complete"
    assert {span["status"] for span in stored["spans"]} == {"complete"}
    assert len(stored["spans"]) == 8


def test_what_fails_is_stored_as_failed(modules: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by("core.mjs", modules, url, "fail", tmp_path)
        stored = the_instance(url)
    assert seen == {"raised": "no such book"}
    assert outline(stored["spans"]) == ["agent complete", "  tool failed", "agent failed"]
    (broken,) = spans_of(stored, "tool")
    assert broken["payload"]["error"]["error_type"] == "RangeError"
    assert broken["result_payload"]["message"] == "no such book"
    (failed,) = [span for span in spans_of(stored, "agent") if span["status"] == "failed"]
    assert failed["result_payload"]["message"] == "given up"


def test_a_run_without_schemas_is_taken(modules: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen_by("core.mjs", modules, url, "without schemas", tmp_path)
        stored = the_instance(url)
    assert outline(stored["spans"]) == ["agent complete", "  tool complete"]


def test_a_terminated_run_stays_terminated(modules: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by("core.mjs", modules, url, "be stopped", tmp_path)
        stored = the_instance(url)
    assert seen == {"status": "terminated", "reason": "too costly"}
    assert (stored["status"], stored["termination_reason"]) == ("terminated", "too costly")
    (task,) = spans_of(stored, "agent")
    assert task["status"] in {"complete", "failed", "cancelled"}
    assert task["result_payload"] is None, "it was closed by the service"
    first = spans_of(stored, "tool")[0]
    assert (first["status"], first["result_payload"]) == ("complete", {"done": 1})


def test_a_token_that_is_not_known_is_refused(modules: Path, tmp_path: Path) -> None:
    with serving("--token", "another") as url:
        seen_by("core.mjs", modules, url, "work", tmp_path)
        assert effects(url) == [], "the SDK only says so in its log"


def test_the_clients_below_the_sdk_are_answered(newest_modules: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by("core.mjs", newest_modules, url, "clients", tmp_path)
        stored = the_instance(url)
        assert happened_once(effects(url))
    registered, started, finished = (seen[name]["details"] for name in ("registered", "started", "finished"))
    assert registered["id"] == started["id"] == finished["id"] == stored["id"]
    assert [one["status"] for one in (registered, started, finished)] == ["pending", "active", "failed"]
    assert started["started_at"].startswith("2026-03-01T09:59:00.123")
    assert finished["finished_at"].startswith("2026-03-01T10:00:00.456")
    parent, whole = seen["parent"]["details"], seen["created"]["details"]
    assert (parent["status"], parent["payload"]) == ("active", {"a": 1})
    assert (whole["status"], whole["parent_span_id"]) == ("complete", parent["id"])
    kept = {span["id"]: span for span in seen["summaries"]}
    assert kept.keys() == {parent["id"], whole["id"]}
    assert (kept[parent["id"]]["status"], kept[parent["id"]]["result_payload"]) == ("failed", {"c": 3})
    assert kept[whole["id"]]["result_payload"] == {"b": 2}
    assert seen["refusal"] == {"name": "HttpClientError", "status": 409, "code": "invalid_action"}


def test_an_agent_is_recorded_by_its_middleware(langchain_modules: Path, tmp_path: Path) -> None:
    with serving() as url:
        seen = seen_by("langchain.mjs", langchain_modules, url, "well", tmp_path)
        stored = the_instance(url)
        assert happened_once(effects(url))
    assert seen == {"answer": "Tea and cake are 7.75 together."}
    assert stored["status"] == "complete"
    assert sorted(span["schema_name"] for span in stored["spans"]) == [
        "custom",
        *["langchain:llm"] * 2,
        *["langchain:tool"] * 2,
    ]
    assert {span["status"] for span in stored["spans"]} == {"complete"}
    said = {
        span["result_payload"]["output"]["kwargs"]["content"] for span in spans_of(stored, "langchain:tool")
    }
    assert said == {"3.5", "4.25"}
    (custom,) = spans_of(stored, "custom")
    assert (custom["payload"]["inputs"], custom["result_payload"]) == ({"tidy": True}, {"tidied": True})


@pytest.mark.parametrize(("broken", "spans"), [("tool", 2), ("model", 1)])
def test_what_fails_below_the_middleware_is_recorded(
    langchain_modules: Path, broken: str, spans: int, tmp_path: Path
) -> None:
    with serving() as url:
        seen = seen_by("langchain.mjs", langchain_modules, url, broken, tmp_path)
        stored = the_instance(url)
    assert "Error" in seen["raised"]
    failed = [span for span in stored["spans"] if span["status"] == "failed"]
    schema = {"tool": "langchain:tool", "model": "langchain:llm"}[broken]
    assert [span["schema_name"] for span in failed] == [schema] * spans
    assert {span["result_payload"]["message"] for span in failed} == {
        f"no {broken if broken == 'model' else 'price'}"
    }
    assert stored["status"] == "complete"
