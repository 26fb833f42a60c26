"""The process: its first line, its end, and what outlives it."""

import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from prefactor_emulator.faults.kinds import FAULT_KINDS
from tests.emulator.driver import (
    CREATE,
    EmulatorProcess,
    bulk_item,
    eventually,
    new_key,
    run_emulator,
    span,
)


def test_the_first_line_says_where_it_listens() -> None:
    with EmulatorProcess() as emulator:
        address = emulator.first_line.removeprefix("prefactor-emulator listening on http://127.0.0.1:")
    assert address.strip().isdigit()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: signal.Signals
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with EmulatorProcess() as emulator, emulator.api() as api:
        api.instance()
        assert list(tmp_path.iterdir())
        assert emulator.end(stop) == (0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--fault", "fire:rate=1"], 2, "there is no fault 'fire'; there are latency, error"),
        (["--host", "256.0.0.1"], 1, "cannot listen on 256.0.0.1:0"),
        (["--host", ".."], 1, "cannot listen on ..:0"),
        (["--db", "/"], 1, "cannot open the database /"),
        (["--db", ""], 2, "--db: name a file"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], status: int, words: str) -> None:
    done = run_emulator("--port", "0", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("prefactor-emulator: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_emulator("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Address already in use; choose another --port" in done.stderr
    assert done.stderr.count("\n") == 1


def test_somebody_elses_file_is_left_alone(tmp_path: Path) -> None:
    letter, theirs = tmp_path / "letter.txt", tmp_path / "theirs.db"
    letter.write_bytes(b"this is a letter, not a database" * 100)
    with closing(sqlite3.connect(theirs)) as database, database:
        database.execute("CREATE TABLE letters (text)")
    for path in (letter, theirs):
        content = path.read_bytes()
        done = run_emulator("--port", "0", "--db", str(path))
        assert done.returncode == 1
        assert done.stderr.startswith("prefactor-emulator: --db: ")
        assert path.read_bytes() == content


def test_half_a_request_bothers_nobody() -> None:
    with EmulatorProcess() as emulator, emulator.api() as api:
        host, port = emulator.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /api/v1/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            served = api.look("stats")["requests"]
            eventually(lambda: served >= 1 or bool(api.look("stats")["requests"]))
        assert api.get("ping").is_success
        assert emulator.end() == (0, "")


def test_a_mistake_of_ours_is_a_500_and_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    with EmulatorProcess("--db", str(path)) as emulator, emulator.api("token-x") as api:
        instance_id = api.instance()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DROP TABLE effects")
        key = new_key()
        private = {"private": "letter"}
        response = api.create(instance_id, key, payload=private)
        assert response.status_code == 500
        assert response.json()["code"] == "internal_error"
        items = [bulk_item(CREATE, None, span(instance_id, payload=private), key)]
        assert api.post("bulk", json={"items": items}).json()["code"] == "internal_error"
        assert api.look(f"instances/{instance_id}")["spans"] == []
        code, errors = emulator.end()
    assert code == 0
    assert "no such table: effects" in errors
    assert "letter" not in errors
    assert "token-x" not in errors


def test_help_names_every_fault() -> None:
    text = run_emulator("--help").stdout
    assert all(name in text for name in FAULT_KINDS)
