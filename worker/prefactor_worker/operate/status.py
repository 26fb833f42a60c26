"""`prefactor-worker status`."""

import asyncio
import signal
from contextlib import aclosing, nullcontext, suppress
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from prefactor_core.broker.driver import Broker
from prefactor_core.exceptions import BrokerError
from prefactor_core.texts import one_line
from prefactor_worker.broker import broker_queue
from prefactor_worker.operate.common import command, write_json
from prefactor_worker.operate.look import FleetReader, Look
from prefactor_worker.operate.status_view import as_json, as_table
from prefactor_worker.operate.words import moment
from prefactor_worker.options import AsJson, Transport

_FRAME_LINES: Final = 12
"""Lines of a terminal that a watched table needs beside its partitions."""
_LEAST_ROWS: Final = 4


@command
async def status(
    *,
    transport: Transport,
    json_document: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again until Ctrl-C; with --json, a line each.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two looks with --watch.")
    ] = 2.0,
) -> int:
    """Show the partitions: who owns them, what waits in them, and how many dead letters there are.

    It changes nothing, and joins no fleet.
    """
    broker = broker_queue(transport).broker
    async with aclosing(FleetReader(broker)) as reader:
        if watch:
            await _watch(reader, _Screen(broker) if json_document else _Terminal(broker), interval)
        elif json_document:
            write_json(as_json(broker.name, await reader.look()))
        else:
            Console().print(as_table(broker.name, await reader.look(), watched=False))
    return 0


async def _watch(reader: FleetReader, screen: "_Screen", interval: float) -> None:
    looking = asyncio.create_task(_look_on(reader, screen, interval), name="status-watch")
    for number in (signal.SIGINT, signal.SIGTERM):  # which are how a watch ends well
        asyncio.get_running_loop().add_signal_handler(number, looking.cancel)
    with screen.live or nullcontext(), suppress(asyncio.CancelledError):
        await looking  # else it ends only by an error: the pipe's, for one


async def _look_on(reader: FleetReader, screen: "_Screen", interval: float) -> None:
    while True:
        try:
            screen.show(await reader.look())
        except BrokerError as error:
            screen.unavailable(str(error))
        await asyncio.sleep(interval)


class _Screen:
    """Where looks are shown; this one writes a JSON document a line."""

    live: Live | None = None
    """What is redrawn, where that is what it does."""

    def __init__(self, broker: Broker) -> None:
        self._name = broker.name

    def show(self, look: Look) -> None:
        write_json(as_json(self._name, look), one_line=True)

    def unavailable(self, problem: str) -> None:
        """Say that nothing could be seen, and why."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        write_json({"broker": self._name, "at": at, "error": problem}, one_line=True)


class _Terminal(_Screen):
    """A table that is redrawn, or one after the other where that cannot be."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._console = Console()
        if self._console.is_terminal:
            self.live = Live(console=self._console, auto_refresh=False)
        self._last: Look | None = None

    def show(self, look: Look) -> None:
        self._last = look
        self._draw(self._table(look), Text(f"{moment(look.at)}; Ctrl-C ends this.", style="dim"))

    def unavailable(self, problem: str) -> None:
        """Draw the last table once more, and why there is no newer one."""
        words = Text(f"{moment(datetime.now(UTC))}: {one_line(problem)}; trying again.", style="red")
        if self._last is None or self.live is None:
            self._draw(words)
        else:
            seen = Text(f"as of {moment(self._last.at)}", style="dim")
            self._draw(self._table(self._last), seen, words)

    def _table(self, look: Look) -> RenderableType:
        rows = None if self.live is None else max(_LEAST_ROWS, self._console.height - _FRAME_LINES)
        return as_table(self._name, look, watched=True, rows=rows)

    def _draw(self, *parts: RenderableType) -> None:
        if self.live is not None:
            self.live.update(Group(*parts), refresh=True)
        else:
            self._console.print(Group(*parts))
