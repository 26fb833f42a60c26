"""Let agents answer questions from files, and show what became of their telemetry.

Each question is an agent instance, each step of its work a span. The proof comes last: what was put, what
took effect, and whether anything was lost, doubled or out of order.
"""

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from rich.console import Console

from agents import Job
from children import Children, DemoError
from fleet import Fleet, place_at
from library import find_files
from play import play
from readback import Emulator
from report import Progress, Report, print_report

_QUESTIONS: Final = [
    "What happens to operations that do not fit into the buffer?",
    "Who may release the lease of a partition?",
    "What becomes of a result that cannot be sent?",
    "When is the token refused, and what is lost then?",
]


def main() -> None:
    """Run the demo. The exit status is 0 if all went well, and 1 if not."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    options = _options()
    try:
        sys.exit(1 if _run(options).problems else 0)
    except DemoError as error:
        sys.exit(f"scripts/demo: {error}")  # which is status 1
    except KeyboardInterrupt:
        sys.exit(130)


def _run(options: argparse.Namespace) -> Report:
    console = Console(quiet=options.json)
    progress = Progress(console)
    with ExitStack() as outer, ExitStack() as stack:
        folder = Path(outer.enter_context(tempfile.TemporaryDirectory(prefix="prefactor-demo-")))
        children = outer.enter_context(Children(folder))
        stack.enter_context(progress.status)
        if transport := options.transport:
            transport = stack.enter_context(place_at(children, transport, progress.say))
        # With a broker it answers as late as an API that is not on the same machine.
        emulator = Emulator(children, *(("--fault", "latency:ms=40") if transport else ()))
        fleet = None
        if transport:
            fleet = Fleet(stack.enter_context(Children(folder)), transport, emulator.url, progress.say)
        job = Job(questions=options.question or _QUESTIONS, files=options.files, interval=0)
        report = play(stack.enter_context(Children(folder)), emulator, fleet, job, progress)
        stack.close()  # what was needed for it ends: the page is left
        print_report(console, report, full=options.full)
        if options.json:
            print(report.model_dump_json(indent=2), flush=True)
        if options.keep:
            print(f"The runs are at {emulator.url} until Ctrl-C.", file=sys.stderr, flush=True)
            with suppress(KeyboardInterrupt, SystemExit):
                signal.pause()
    return report


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="PATH", help="what to read; default: this project's documents")
    add("-q", "--question", action="append", metavar="TEXT", help="ask this; repeatable, an instance each")
    add("--transport", metavar="URL", help="publish to redis://... or amqp://..., kill one of two workers")
    add("--keep", action="store_true", help="keep the emulator and its page running until Ctrl-C")
    add("--full", action="store_true", help="show every span, also the many alike")
    add("--json", action="store_true", help="print one JSON document instead")
    options = parser.parse_intermixed_args()
    try:
        options.files = find_files(options.paths)
    except ValueError as error:
        parser.error(str(error))
    return options
