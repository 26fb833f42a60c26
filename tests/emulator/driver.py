"""Driving the emulator without the client."""

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject, OperationType
from tests.support.emulator import EmulatorThread

NOW = "2026-03-01T10:00:00.000000Z"
EARLIER = "2026-03-01T09:59:00.000000Z"

REGISTER = OperationType.REGISTER_INSTANCE
START = OperationType.START_INSTANCE
FINISH = OperationType.FINISH_INSTANCE
TERMINATE = OperationType.TERMINATE_INSTANCE
QUALITY = OperationType.RECORD_QUALITY
CREATE = OperationType.CREATE_SPAN
FINISH_SPAN = OperationType.FINISH_SPAN

OVER: JsonObject = {"status": "complete", "timestamp": NOW}

_PATHS = {
    REGISTER: "agent_instance/register",
    START: "agent_instance/{}/start",
    FINISH: "agent_instance/{}/finish",
    TERMINATE: "agent_instance/{}/terminate",
    QUALITY: "agent_instance/{}/record_quality",
    CREATE: "agent_spans",
    FINISH_SPAN: "agent_spans/{}/finish",
}
_numbers = itertools.count(1)


def new_key() -> str:
    return f"key-{next(_numbers):08d}"


def registration(**changes: object) -> JsonObject:
    fields: JsonObject = {
        "agent_id": "reader",
        "agent_version": {"name": "Reader", "external_identifier": "v1"},
        "agent_schema_version": {
            "external_identifier": "s1",
            "span_schemas": {"plain": {"type": "object"}},
            "span_result_schemas": {"result-only": {"type": "object"}},
            "span_type_schemas": [{"name": "typed", "params_schema": {"type": "object"}}],
        },
    }
    return fields | changes


def span(instance_id: str, **changes: object) -> JsonObject:
    details: JsonObject = {
        "agent_instance_id": instance_id,
        "schema_name": "plain",
        "status": "active",
        "payload": {"question": "why?"},
    }
    return {"details": details | changes}


def without(fields: JsonObject, name: str) -> JsonObject:
    return {field: value for field, value in fields.items() if field != name}


def bulk_item(operation_type: OperationType, target: str | None, fields: JsonObject, key: str) -> JsonObject:
    item: JsonObject = {"_type": operation_type, "idempotency_key": key, **fields}
    if target is not None:
        of_span = operation_type is FINISH_SPAN
        item["agent_span_id" if of_span else "agent_instance_id"] = target
    return item


class Refused(NamedTuple):
    """What was said of an operation that was not done."""

    status: int
    code: str
    errors: list[str]
    """The fields that were wrong."""


class Api(httpx.Client):
    """An HTTP client with an account of its own."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.root = url
        super().__init__(
            base_url=f"{url}/api/v1/",
            headers={"Authorization": f"Bearer {token or new_id()}"},
            timeout=60,
        )

    def write(
        self,
        operation_type: OperationType,
        target: str | None,
        fields: JsonObject,
        key: str | None = None,
    ) -> httpx.Response:
        path = _PATHS[operation_type].format(target)
        return self.post(path, json={"idempotency_key": key or new_key(), **fields})

    def do(
        self, operation_type: OperationType, target: str | None, fields: JsonObject, key: str | None = None
    ) -> dict[str, Any]:
        """Write, and return the reply to a success."""
        response = self.write(operation_type, target, fields, key)
        assert response.is_success, response.text
        return dict(response.json())

    def refused(
        self, operation_type: OperationType, target: str | None, fields: JsonObject, key: str | None = None
    ) -> Refused:
        """Write, and return the refusal; see that it has changed nothing."""
        before = self._stored()
        response = self.write(operation_type, target, fields, key)
        assert not response.is_success, response.text
        assert self._stored() == before, "a refused operation left something behind"
        said = response.json()
        return Refused(response.status_code, said["code"], list(said.get("errors", ())))

    def create(self, instance_id: str, key: str | None = None, /, **changes: object) -> httpx.Response:
        return self.write(CREATE, None, span(instance_id, **changes), key)

    def span(self, instance_id: str, **changes: object) -> str:
        return str(self.do(CREATE, None, span(instance_id, **changes))["details"]["id"])

    def terminate(self, instance_id: str, **fields: str) -> httpx.Response:
        return self.post(f"{self.root}/emulator/instances/{instance_id}/terminate", json=fields)

    def bulk(self, *items: JsonObject) -> dict[str, Any]:
        response = self.post("bulk", json={"items": items})
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["status"] == "success"
        return dict(body["outputs"])

    def instance(self, status: str = "active", fields: JsonObject | None = None) -> str:
        """Register an instance and bring it into a state."""
        instance_id: str = self.do(REGISTER, None, fields or registration())["details"]["id"]
        if status != "pending":
            self.do(START, instance_id, {"timestamp": NOW})
        if status == "terminated":
            assert self.terminate(instance_id, reason="too costly").is_success
        elif status not in {"pending", "active"}:
            self.do(FINISH, instance_id, OVER | {"status": status})
        return instance_id

    def look(self, path: str) -> Any:
        return self.get(f"{self.root}/emulator/{path}").raise_for_status().json()

    def _stored(self) -> tuple[object, object]:
        return self.look("stats")["effects"], self.look("instances?limit=5")

    def effects(self, instance_id: str) -> list[dict[str, Any]]:
        effects = self.look("effects?limit=100000")["effects"]
        return [effect for effect in effects if effect["instance_id"] == instance_id]


class Served(EmulatorThread):
    """An emulator in a thread of the test run."""

    def api(self, token: str | None = None) -> Api:
        return Api(self.url, token)


class EmulatorProcess:
    """A running `prefactor-emulator`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prefactor_emulator", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        if not self.first_line:
            raise AssertionError(f"the emulator did not start: {self.process.communicate()[1]}")
        self.url = self.first_line.split()[-1]
        self._ended: tuple[int, str] | None = None

    def api(self, token: str | None = None) -> Api:
        return Api(self.url, token)

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Stop it, and tell its exit status and what it wrote on stderr."""
        if self._ended is None:
            self.process.send_signal(with_signal)
            _, errors = self.process.communicate(timeout=60)
            self._ended = (self.process.returncode, errors)
        return self._ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.end()  # it tidies up after itself when it is asked to stop
        finally:
            self.process.kill()


def run_emulator(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `prefactor-emulator` to its end, which comes by itself."""
    command = [sys.executable, "-m", "prefactor_emulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def eventually(condition: Callable[[], bool], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@contextmanager
def faults(api: Api, *specs: str, seed: int = 0) -> Iterator[None]:
    address = f"{api.root}/emulator/faults"
    response = api.post(address, json={"faults": specs, "seed": seed})
    assert response.json() == {"faults": list(specs), "hits": [0] * len(specs), "seed": seed}
    try:
        yield
    finally:
        assert api.delete(address).json()["faults"] == []
