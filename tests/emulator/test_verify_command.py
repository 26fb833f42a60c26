"""`prefactor-emulator verify`: what it reads, what it says, and how it exits."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject, OperationType
from prefactor_emulator.verify.compare import PUT_TYPES
from tests.emulator.driver import (
    CREATE,
    FINISH,
    FINISH_SPAN,
    NOW,
    OVER,
    QUALITY,
    REGISTER,
    START,
    EmulatorProcess,
    bulk_item,
    registration,
    run_emulator,
    span,
)


def run_verify(db: Path, puts: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run_emulator("verify", "--db", str(db), "--puts", str(puts), *more)


def write_puts(path: Path, items: Sequence[JsonObject]) -> Path:
    names = {operation_type: name for name, operation_type in PUT_TYPES.items()}
    lines = [item | {"type": names[OperationType(str(item["type"]))]} for item in items]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def a_run() -> tuple[list[JsonObject], list[JsonObject]]:
    """Make the items of a run, and what its agent would say that it put."""
    instance_id, span_id = new_id(), new_id()
    items = [
        bulk_item(REGISTER, None, registration(id=instance_id), f"{instance_id}:reg"),
        bulk_item(START, instance_id, {"timestamp": NOW}, f"{instance_id}:start"),
        bulk_item(CREATE, None, span(instance_id, id=span_id), f"{span_id}:create"),
        bulk_item(FINISH_SPAN, span_id, OVER, f"{span_id}:finish"),
        bulk_item(QUALITY, instance_id, {"name": "q", "payload": {"n": 1}}, f"{instance_id}:q"),
        bulk_item(FINISH, instance_id, OVER, f"{instance_id}:finish"),
    ]
    puts: list[JsonObject] = [
        {"instance_id": instance_id, "type": item["_type"], "key": item["idempotency_key"]} for item in items
    ]
    return items, puts


def test_the_command_is_content_while_the_emulator_runs_and_after(tmp_path: Path) -> None:
    db, (items, puts) = tmp_path / "runs.db", a_run()
    path = write_puts(tmp_path / "puts.jsonl", puts)
    with EmulatorProcess("--db", str(db)) as emulator, emulator.api() as api:
        for _ in range(2):
            assert len(api.bulk(*items)) == len(items)
        running = run_verify(db, path)
    after = run_verify(db, path, "--json")
    assert (running.returncode, running.stderr) == (0, "")
    told = [" ".join(line.split()) for line in running.stdout.splitlines()]
    assert told[3:] == ["lost 0", "doubled 0", "out of order 0", "unexpected 0", "refused 0"]
    assert (after.returncode, after.stderr) == (0, "")
    counts = {"puts": 6, "effects": 6, "instances": 1}
    nothing = {"lost": 0, "doubled": 0, "out_of_order": 0, "unexpected": 0, "refused": 0}
    assert json.loads(after.stdout) == {**counts, **nothing, "clean": True, "findings": []}


def test_without_deduplication_every_repeat_is_found(tmp_path: Path) -> None:
    db, (items, puts) = tmp_path / "runs.db", a_run()
    path = write_puts(tmp_path / "puts.jsonl", puts)
    with EmulatorProcess("--db", str(db), "--no-dedup") as emulator, emulator.api() as api:
        first = api.bulk(*items)
        assert run_verify(db, path).returncode == 0
        assert api.bulk(*items) == first, "repeats are let through"
        body = {"idempotency_key": items[2]["idempotency_key"], "details": items[2]["details"]}
        assert api.post("agent_spans", json=body).is_success
        other = api.bulk(dict(items[4], payload=None))
        assert next(iter(other.values()))["code"] == "idempotency_key_reused"
        effects = api.effects(str(puts[0]["instance_id"]))
    assert [each["key"] for each in effects[6:12]] == [each["key"] for each in effects[:6]]
    assert [each["span_id"] for each in effects[6:12]] == [each["span_id"] for each in effects[:6]]
    done = run_verify(db, path, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["lost"], report["doubled"], report["out_of_order"], report["unexpected"]) == (0, 7, 0, 0)
    assert report["findings"][0]["doubled"] == {"count": 7, "first": [each["key"] for each in puts[:5]]}


def test_what_is_wrong_is_shown_by_its_keys(tmp_path: Path) -> None:
    db, (items, puts) = tmp_path / "runs.db", a_run()
    puts.insert(1, puts.pop())
    lost: JsonObject = {"instance_id": puts[0]["instance_id"], "type": CREATE, "key": "never-sent"}
    path = write_puts(tmp_path / "puts.jsonl", [*puts, lost])
    with EmulatorProcess("--db", str(db)) as emulator, emulator.api() as api:
        api.bulk(*items)
        api.instance()
    done = run_verify(db, path)
    assert done.returncode == 1
    assert f"instance {puts[0]['instance_id']}\n  1 lost: never-sent\n  1 out of order: " in done.stdout
    assert f"1 out of order: {puts[1]['key']}\n" in done.stdout
    assert "  2 unexpected: key-" in done.stdout


def test_puts_that_cannot_be_read_are_told(tmp_path: Path, subtests: pytest.Subtests) -> None:
    db, path = tmp_path / "runs.db", tmp_path / "puts.jsonl"
    with EmulatorProcess("--db", str(db)):
        pass
    unreadable = {
        None: "cannot read",
        "{": "line 1: this is not JSON",
        "\n[]": "line 2: this is not a JSON object",
        '{"instance_id": "a", "type": "create_span"}': "line 1: 'key' is missing",
        '{"instance_id": "a", "type": "paint", "key": "k"}': "there is no type 'paint'; there are",
    }
    for content, words in unreadable.items():
        with subtests.test(words):
            if content is not None:
                path.write_text(content)
            done = run_verify(db, path)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr.startswith("prefactor-emulator verify: ")
            assert words in done.stderr
            assert done.stderr.count("\n") == 1


def test_a_database_that_is_none_is_told_and_left_alone(tmp_path: Path) -> None:
    path = write_puts(tmp_path / "puts.jsonl", [])
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear checker, " * 100)
    for db, words in ((tmp_path / "missing.db", "there is no database"), (letter, "as a database")):
        done = run_verify(db, path)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["letter.txt", "puts.jsonl"]


def test_missing_arguments_are_wrong_arguments(tmp_path: Path) -> None:
    done = run_emulator("verify", "--db", str(tmp_path / "x.db"))
    assert done.returncode == 2
    assert "--puts" in done.stderr
