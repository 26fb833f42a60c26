"""Several workers on one machine: a process each, started again when they crash.

Each holds the end of a pipe whose other end only the first process has. Nothing is ever written there: it
ends when the first process does, also when that was killed, and the workers stop too.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger("prefactor_worker")

_LOOK: Final = 0.2
"""Seconds between two looks at the processes."""
_SOON: Final = 10.0
"""Seconds of life below which a crash counts as one in a row, and is waited after."""
_LONGEST_WAIT: Final = 30.0
_USAGE: Final = 2


@dataclass(slots=True)
class _Place:
    """One place in the fleet, and who fills it."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    crashes: int = 0
    next_start: float = 0.0
    ended: int | None = None


def run_fleet(processes: int, metrics_port: int, grace: float) -> int:
    """Run workers with this process's own arguments, until all have ended.

    Args:
        processes: How many.
        metrics_port: Port of the first; the others take the next ones. 0 for none.
        grace: Seconds that they have to stop; then they are killed.

    Returns:
        0 if all ended well, else the first other exit status.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    # The end to write to is inherited by nobody, and stays open for as long as this process lives.
    lifeline, _ = os.pipe()
    places = [_Place(number) for number in range(processes)]
    told = 0
    deadline = float("inf")
    while any(place.ended is None for place in places):
        if len(asked) > told:
            told = len(asked)
            deadline = time.monotonic() + grace + 5.0
            _signal(places, signal.SIGTERM)
        if time.monotonic() > deadline:
            _signal(places, signal.SIGKILL)
        for place in places:
            _look_at(place, metrics_port, lifeline, stopping=told > 0)
        time.sleep(_LOOK)
    return next((place.ended for place in places if place.ended), 0)


def _look_at(place: _Place, metrics_port: int, lifeline: int, *, stopping: bool) -> None:
    now = time.monotonic()
    if place.ended is not None:
        return
    if place.process is None:
        if stopping:
            place.ended = 0
        elif now >= place.next_start:
            place.process = _start(place.number, metrics_port, lifeline)
            place.started_at = now
        return
    status = place.process.poll()
    if status is None:
        return
    place.process = None
    if status in {0, _USAGE} or stopping:
        place.ended = status if status >= 0 else 128 - status  # as a shell tells of a signal
        return
    place.crashes = place.crashes + 1 if now - place.started_at < _SOON else 1
    wait = min(_LONGEST_WAIT, 2.0 ** (place.crashes - 1)) if place.crashes > 1 else 0.0
    place.next_start = now + wait
    logger.warning("worker %d ended with status %d, starting it again in %.0f s", place.number, status, wait)


def _start(number: int, metrics_port: int, lifeline: int) -> "subprocess.Popen[bytes]":
    port = metrics_port + number if metrics_port else 0
    # The same arguments; the last of an option that is given twice is the one that counts.
    arguments = [*sys.argv[1:], "--processes", "1", "--metrics-port", str(port), "--lifeline", str(lifeline)]
    return subprocess.Popen(  # noqa: S603 -- this very program
        [sys.executable, "-m", "prefactor_worker", *arguments],
        start_new_session=True,
        pass_fds=(lifeline,),
    )


def _signal(places: list[_Place], number: signal.Signals) -> None:
    for place in places:
        if place.process is not None and place.process.poll() is None:
            place.process.send_signal(number)
