"""`prefactor-worker status`."""

import asyncio
import signal
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from prefactor_core.broker.driver import Broker
from prefactor_core.exceptions import BrokerError
from prefactor_worker.operate.common import AsJson, Transport, carry_out, open_broker, write_json
from prefactor_worker.operate.look import Look, Observer
from prefactor_worker.operate.status_view import as_json, as_table
from prefactor_worker.operate.words import moment, safe

_FRAME_LINES: Final = 12
"""Lines of a terminal that a watched table needs beside its partitions."""
_LEAST_ROWS: Final = 4


def status(
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
    if watch:
        return carry_out(_watch(transport, interval, json=json_document))
    return carry_out(_show(transport, json=json_document))


async def _show(transport: str, *, json: bool) -> int:
    broker = open_broker(transport).broker
    async with aclosing(Observer(broker)) as observer:
        look = await observer.look()
    if json:
        write_json(as_json(broker.name, look))
    else:
        Console().print(as_table(broker.name, look, watched=False))
    return 0


async def _watch(transport: str, interval: float, *, json: bool) -> int:
    broker = open_broker(transport).broker
    screen = _Screen(broker) if json else _Terminal(broker, Console())
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):  # which are how a watch ends well
        loop.add_signal_handler(number, stopped.set)
    async with aclosing(Observer(broker)) as observer:
        looking = asyncio.create_task(_look_on(observer, screen, interval), name="status-watch")
        stop = asyncio.create_task(stopped.wait(), name="status-stop")
        screen.open()
        try:
            await asyncio.wait([looking, stop], return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                looking.result()  # it ends only by an error: the pipe's, for one
        finally:
            for task in (looking, stop):
                task.cancel()
            await asyncio.gather(looking, stop, return_exceptions=True)
            screen.close()
    return 0


async def _look_on(observer: Observer, screen: "_Screen", interval: float) -> None:
    while True:
        try:
            screen.show(await observer.look())
        except BrokerError as error:
            screen.unavailable(str(error))
        await asyncio.sleep(interval)


class _Screen:
    """Where looks are shown; this one writes a JSON document a line."""

    def __init__(self, broker: Broker) -> None:
        self._name = broker.name

    def open(self) -> None:
        """Begin to redraw, where that is what it does."""

    def close(self) -> None:
        """Leave what was drawn last where it is."""

    def show(self, look: Look) -> None:
        write_json(as_json(self._name, look), one_line=True)

    def unavailable(self, problem: str) -> None:
        """Say that nothing could be seen, and why."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        write_json({"broker": self._name, "at": at, "error": problem}, one_line=True)


class _Terminal(_Screen):
    """A table that is redrawn, or one after the other where that cannot be."""

    def __init__(self, broker: Broker, console: Console) -> None:
        super().__init__(broker)
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last: Look | None = None

    def open(self) -> None:
        if self._live is not None:
            self._live.start()

    def show(self, look: Look) -> None:
        self._last = look
        self._draw(self._table(look), Text(f"{moment(look.at)}; Ctrl-C ends this.", style="dim"))

    def unavailable(self, problem: str) -> None:
        """Draw the last table once more, and why there is no newer one."""
        words = Text(f"{moment(datetime.now(UTC))}: {safe(problem)}; trying again.", style="red")
        if self._last is None or self._live is None:
            self._draw(words)
        else:
            seen = Text(f"as of {moment(self._last.at)}", style="dim")
            self._draw(self._table(self._last), seen, words)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _table(self, look: Look) -> RenderableType:
        rows = None if self._live is None else max(_LEAST_ROWS, self._console.height - _FRAME_LINES)
        return as_table(self._name, look, watched=True, rows=rows)

    def _draw(self, *parts: RenderableType) -> None:
        if self._live is not None:
            self._live.update(Group(*parts), refresh=True)
        else:
            self._console.print(Group(*parts))
