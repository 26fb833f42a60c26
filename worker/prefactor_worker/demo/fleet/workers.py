"""The workers, seen from the demo: processes, and what their ``/metrics`` say."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from prefactor_worker.demo.children import Child, Children
from prefactor_worker.demo.errors import DemoError
from prefactor_worker.demo.fleet.agents import plain_environment
from prefactor_worker.run.command import TOKEN_VARIABLE, TRANSPORT_VARIABLE

_HOST: Final = "127.0.0.1"
_GRACE: Final = 6
_BATCH: Final = 50
"""Small requests, so that there are many of them."""
_TIMEOUT: Final = httpx.Timeout(2.0)


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """What a worker says of itself.

    Attributes:
        settled: Operations whose effect has happened.
        held: Operations that it holds.
        owned: Partitions that it owns.
    """

    settled: int = 0
    held: int = 0
    owned: int = 0


class WorkerProcess:
    """A `prefactor-worker run`.

    Args:
        child: The process.
        http: For asking it.
        port: Where it serves its metrics.
    """

    def __init__(self, child: Child, http: httpx.AsyncClient, port: int) -> None:
        self.child = child
        self.figures = WorkerFigures()
        """What it said last."""
        self.killed = False
        self._http = http
        self._port = port

    @classmethod
    async def start(
        cls, children: Children, http: httpx.AsyncClient, number: int, port: int, transport: str, api: str
    ) -> Self:
        """Start one.

        Args:
            children: Ends it.
            http: For asking it.
            number: Which one it is, from 0.
            port: Where it serves its metrics.
            transport: Where it takes from.
            api: Where it posts.
        """
        arguments = (
            *("-m", "prefactor_worker", "run", "--api-url", api, "--batch", str(_BATCH)),
            *("--metrics-host", _HOST, "--metrics-port", str(port), "--grace", str(_GRACE)),
        )
        # Not on its command line: the URL may hold a password. The emulator takes any token.
        secrets = {TRANSPORT_VARIABLE: transport, TOKEN_VARIABLE: "demo"}
        child = await children.start(f"worker {number + 1}", arguments, {**plain_environment(), **secrets})
        return cls(child, http, port)

    async def ask(self) -> None:
        """Bring ``figures`` up to date. One that does not answer yet, or any more, keeps what it said last.

        Raises:
            DemoError: It has ended by itself.
        """
        if self.killed:
            return
        if self.child.status is not None:
            raise DemoError(self.child.ending)
        with contextlib.suppress(httpx.HTTPError):
            reply = await self._http.get(f"http://{_HOST}:{self._port}/metrics", timeout=_TIMEOUT)
            self.figures = _figures(reply.text)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.killed = True
        await self.child.kill()

    async def stop(self) -> None:
        """End it cleanly.

        Raises:
            DemoError: It did not.
        """
        self.child.signal(signal.SIGTERM)
        status = await self.child.ended(_GRACE + 2)
        if status != 0:
            late = f"{self.child.name} did not end in time: {self.child.last_words}"
            raise DemoError(late if status is None else self.child.ending)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((_HOST, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _figures(text: str) -> WorkerFigures:
    totals: dict[str, float] = {}
    for name, value in _samples(text):
        totals[name] = totals.get(name, 0.0) + value
    return WorkerFigures(
        settled=int(totals.get("prefactor_operations_settled_total", 0)),
        held=int(totals.get("prefactor_operations_held", 0)),
        owned=int(totals.get("prefactor_partitions_owned", 0)),
    )


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.value
