"""A broker, and two workers: one is killed in the middle, and the other takes over."""

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from children import Children, DemoError
from prefactor_core import PrefactorCoreConfig
from prefactor_core.exceptions import BrokerError
from prefactor_core.plugins import create_queue
from prefactor_core.transport import BrokerQueue

Say = Callable[[str], None]
_HOST: Final = "127.0.0.1"
_READY_LOOKS: Final = 150
_CLEAR_SECONDS: Final = 4.0


@contextmanager
def place_at(children: Children, url: str, say: Say) -> Iterator[str]:
    """Check a broker, and yield the URL to use. A prefix of the demo's own is deleted at the end."""
    check = children.ask("prefactor_worker", "check", PREFACTOR_TRANSPORT_URL=url)
    for finding in check["findings"]:
        if finding["level"] == "problem":
            raise DemoError(f"the broker cannot be used: {finding['text']}")
        if finding["level"] == "warning":
            say(f"broker: {finding['text']}")
    given = parse_qs(urlsplit(url).query)
    # A worker that was killed is missed after 3 s: sooner than by default.
    options = {"lease": "3"} if url.startswith("redis") else {"heartbeat": "3"}
    if own := "prefix" not in given:
        options |= {"prefix": f"prefactor-demo-{secrets.token_hex(4)}", "partitions": "8"}
    added = urlencode({name: value for name, value in options.items() if name not in given})
    place = f"{url}{'&' if given else '?'}{added}"
    total = children.ask("prefactor_worker", "status", PREFACTOR_TRANSPORT_URL=place)["total"]
    if total["backlog"] or total["owned"]:
        raise DemoError("this prefix is in use: leave it out of the URL, and the demo takes one of its own")
    try:
        yield place
    finally:
        if own:
            with suppress(BrokerError, TimeoutError):
                asyncio.run(_clear(place))


async def _clear(url: str) -> None:
    queue = create_queue(url, PrefactorCoreConfig(transport_url=url))
    async with asyncio.timeout(_CLEAR_SECONDS):
        if isinstance(queue, BrokerQueue):
            await queue.broker.clear()


class Worker:
    """A `prefactor-worker run`, and what its metrics said last."""

    def __init__(self, children: Children, name: str, transport: str, api_url: str) -> None:
        with socket.create_server((_HOST, 0)) as free:
            self._metrics = f"{_HOST}:{free.getsockname()[1]}"
        metrics = ("--metrics-host", _HOST, "--metrics-port", self._metrics.rpartition(":")[2])
        options = ("--api-url", api_url, "--batch", "50", "--grace", "6", *metrics)
        # The URL may hold a password, and a command line can be read by all.
        variables = {"PREFACTOR_TRANSPORT_URL": transport, "PREFACTOR_API_TOKEN": "demo"}
        self.child = children.start(name, "-m", "prefactor_worker", "run", *options, **variables)
        self.settled = self.prefetched = self.owned = 0
        self.killed = False

    def ask(self) -> None:
        """Read its metrics. While it does not answer, it keeps what it said last."""
        if not self.killed:
            self.child.check()
            with suppress(httpx.HTTPError):
                lines = httpx.get(f"http://{self._metrics}/metrics", timeout=2.0, trust_env=False).text
                self.settled = _total(lines, "prefactor_operations_settled_total")
                self.prefetched = _total(lines, "prefactor_operations_prefetched")
                self.owned = _total(lines, "prefactor_partitions_owned")

    @property
    def words(self) -> str:
        """What it said last."""
        now = "killed" if self.killed else f"holds {self.prefetched}, owns {self.owned} partitions"
        return f"settled {self.settled}, {now}"


def _total(metrics: str, name: str) -> int:
    lines = (line for line in metrics.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(int(float(line.split()[-1])) for line in lines)


class Fleet:
    """Two workers between the broker at ``transport`` and the API at ``api_url``."""

    def __init__(self, children: Children, transport: str, api_url: str, say: Say) -> None:
        self._say = say
        self.variables = {"PREFACTOR_TRANSPORT_URL": transport}
        self.workers = [Worker(children, f"worker {n}", transport, api_url) for n in (1, 2)]
        watch = ("-m", "prefactor_worker", "status", "--json", "--watch", "--interval", "0.5")
        self._status = children.start("status", *watch, **self.variables)
        self._taken_over = False
        self.kill = ""
        self._wait_until_shared_out()

    def _wait_until_shared_out(self) -> None:
        for _ in range(_READY_LOOKS):
            for worker in self.workers:
                worker.ask()
            partitions, owned = self.status("partitions"), [worker.owned for worker in self.workers]
            if 0 < partitions == sum(owned) and (all(owned) or partitions == 1):
                break
            time.sleep(0.2)
        else:
            words = min(self.workers, key=lambda worker: worker.owned).child.last_line("err")
            raise DemoError(f"the workers have not shared out the partitions: {words}")
        for worker in self.workers:
            self._say(f"{worker.child.name} (process {worker.child.pid}) owns {worker.owned} partitions")

    def status(self, figure: str) -> int:
        """Return a figure of `prefactor-worker status`, of all partitions; -1 while it is not known."""
        self._status.check()
        return int(json.loads(self._status.last_line() or "{}").get("total", {}).get(figure, -1))

    def look(self, answered: float, effects: int, put: int) -> None:
        """Ask the workers how far they are, kill one in the middle, and tell who takes over."""
        for worker in self.workers:
            worker.ask()
        victim = max(self.workers, key=lambda worker: (worker.prefetched, worker.settled))
        if self.kill:
            (heir,) = (worker for worker in self.workers if not worker.killed)
            if not self._taken_over and heir.owned == self.status("partitions"):
                self._taken_over = True
                self._say(f"{heir.child.name} owns all {heir.owned} partitions now")
        elif effects and answered >= (0.33 if victim.prefetched else 0.66):
            victim.child.kill()
            victim.killed = True
            self.kill = (
                f"{victim.child.name} was killed with SIGKILL: it had settled {victim.settled} operations "
                f"and held {victim.prefetched}; {effects} of {max(put, effects)} had taken effect"
            )
            self._say(self.kill)
