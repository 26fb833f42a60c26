"""The API on this machine: a `prefactor-emulator` process, and what it shows of the runs."""

import time
from typing import Any, Final

import httpx

from children import Children, DemoError

_START_SECONDS: Final = 30.0


class Emulator:
    """A `prefactor-emulator` at a free port, with more ``options``."""

    def __init__(self, children: Children, *options: str) -> None:
        self._children = children
        self._database = str(children.folder / "emulator.db")
        arguments = ("-m", "prefactor_emulator", "--port", "0", "--db", self._database, *options)
        child = children.start("emulator", *arguments)
        deadline = time.monotonic() + _START_SECONDS
        while not child.last_line():
            if child.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the emulator did not start: {child.last_line('err')}")
            time.sleep(0.05)
        self.url = child.last_line().split()[-1]
        self.variables = {"PREFACTOR_API_URL": self.url, "PREFACTOR_API_TOKEN": "any"}

    def stats(self) -> dict[str, Any]:
        """Return how many requests it has served, and its effects by type."""
        return self._read("stats")

    def run(self, instance_id: str) -> dict[str, Any]:
        """Return an agent instance, its spans as trees."""
        run = self._read(f"instances/{instance_id}")
        spans = {span["id"]: span | {"children": []} for span in run["spans"]}
        for span in spans.values():
            if parent := spans.get(span["parent_span_id"]):
                parent["children"].append(span)
        return run | {"spans": [span for span in spans.values() if span["parent_span_id"] not in spans]}

    def verify(self, puts: bytes) -> dict[str, Any]:
        """Compare what took effect with what agents put: lost, doubled, out of order, unexpected."""
        file = self._children.folder / "all.puts"
        file.write_bytes(puts)
        return self._children.ask("prefactor_emulator", "verify", "--db", self._database, "--puts", str(file))

    def _read(self, path: str) -> dict[str, Any]:
        try:
            reply = httpx.get(f"{self.url}/emulator/{path}", timeout=20.0, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise DemoError(f"the emulator did not answer: {error}") from error
        body: dict[str, Any] = reply.json()
        return body
