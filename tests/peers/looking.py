"""Programs that use published clients: running them, and what an emulator has stored of their run."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.emulator import EmulatorThread, mistakes_of

PROGRAMS: Final = Path(__file__).parent / "programs"
TOKEN: Final = "any-token"  # of all programs
_SECONDS: Final = 300.0


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run an emulator, and give its address."""
    emulator = EmulatorThread(*options)
    try:
        yield emulator.url
    finally:
        mistakes = mistakes_of(emulator.end())
    assert mistakes == []


def report_of(*command: str | Path, cwd: Path) -> Any:
    """Run a program to its end, and return what it printed last, as JSON."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PREFACTOR_")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def the_instance(url: str) -> dict[str, Any]:
    """Return the one instance that an emulator has, with its spans."""
    (instance_id,) = {effect["instance_id"] for effect in effects(url)}
    return instance(url, instance_id)


def instance(url: str, instance_id: str) -> dict[str, Any]:
    """Return an instance with its spans."""
    found: dict[str, Any] = _read(url, f"instances/{instance_id}")
    return found


def effects(url: str) -> list[dict[str, Any]]:
    """Return all that has happened, in order."""
    found: list[dict[str, Any]] = _read(url, "effects?limit=1000")["effects"]
    return found


def happened_once(done: Iterable[dict[str, Any]]) -> bool:
    """Whether nothing was done twice to the same instance or span."""
    deeds = [(effect["type"], effect["instance_id"], effect["span_id"]) for effect in done]
    return len(deeds) == len(set(deeds))


def spans_of(stored: dict[str, Any], schema: str) -> list[dict[str, Any]]:
    """Return the spans of one schema, in the order in which they began."""
    found = [span for span in stored["spans"] if span["schema_name"] == schema]
    return sorted(found, key=lambda span: str(span["started_at"]))


def of_the_api(url: str, path: str) -> dict[str, Any]:
    """Return what the API itself answers to a read with the token of the programs."""
    found: dict[str, Any] = _get(f"{url}/api/v1/{path}", {"Authorization": f"Bearer {TOKEN}"})
    return found


def _read(url: str, path: str) -> Any:
    return _get(f"{url}/emulator/{path}", {})


def _get(url: str, headers: dict[str, str]) -> Any:
    return httpx.get(url, headers=headers, timeout=60, trust_env=False).raise_for_status().json()
