"""What is seen while it happens: a table that changes, plain lines, or nothing."""

from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prefactor_worker.demo.fleet.look import FleetLook, WorkerLook

_LINE_SECONDS: Final = 1.0


class View(Protocol):
    """Shows what happens, for the length of a ``with``."""

    def event(self, words: str) -> None:
        """Say what has just happened."""

    def show(self, look: FleetLook) -> None:
        """Show how far it is."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""


class SilentView:
    """Shows nothing: the only output is the report."""

    def event(self, words: str) -> None:
        """Say nothing."""

    def show(self, look: FleetLook) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""


class LineView(SilentView):
    """Prints a line now and then.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def event(self, words: str) -> None:
        """Print what has happened."""
        self._console.print(Text(words), soft_wrap=True)

    def show(self, look: FleetLook) -> None:
        """Print how far it is, once a second."""
        if look.seconds < self._next:
            return
        self._next = look.seconds + _LINE_SECONDS
        self.event(f"{look.seconds:5.1f} s  " + "; ".join((*_agent_words(look), *_other_words(look))))


class LiveView(SilentView):
    """Keeps a table up to date below what has happened.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8)

    def event(self, words: str) -> None:
        """Print what has happened above the table."""
        self._console.print(Text(words, style="bold"))

    def show(self, look: FleetLook) -> None:
        """Replace the table."""
        self._live.update(_table(look))

    def __enter__(self) -> Self:
        """Begin."""
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the table as it was last."""
        self._live.stop()


def console_view(console: Console) -> View:
    """Return what a console can show."""
    return LiveView(console) if console.is_terminal else LineView(console)


def _agent_words(look: FleetLook) -> list[str]:
    return [f"{agent.name} put {agent.progress.put}" for agent in look.agents]


def _other_words(look: FleetLook) -> list[str]:
    settled = [
        f"{worker.name} settled {worker.figures.settled}{' (killed)' if worker.killed else ''}"
        for worker in look.workers
    ]
    return [*settled, f"waiting {_waiting(look)}", f"effects {look.effects}"]


def _table(look: FleetLook) -> Table:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(min_width=44)
    for agent in look.agents:
        progress = agent.progress
        table.add_row(
            agent.name,
            f"{progress.answered} of {agent.questions} questions, put {progress.put}, "
            f"{progress.confirmed} at the broker",
        )
    table.add_section()
    for worker in look.workers:
        table.add_row(worker.name, _worker_text(worker))
    table.add_section()
    table.add_row("broker", f"{_waiting(look)} waiting")
    table.add_row("API", f"{look.effects} effects")
    table.add_row("", f"{look.seconds:.1f} s")
    return table


def _worker_text(worker: WorkerLook) -> Text:
    figures = worker.figures
    text = Text(f"settled {figures.settled}")
    if worker.killed:
        text.append(", killed", style="bold red")
    else:
        text.append(f", holds {figures.held}, owns {figures.owned} partitions", style="green")
    return text


def _waiting(look: FleetLook) -> str:
    return "unknown" if look.waiting is None else str(look.waiting)
