"""Runs the suite that a published package was released with, on this SDK: SOURCE CLOCK [PYTEST_OPTIONS].

Nothing leaves the process, and no busy machine can hurry a test. With the clock ``virtual`` time passes when
nothing else can happen; with ``slow`` a second takes half a minute, for tests that have threads, give up
after a second, and sleep nowhere.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402 -- it is run with -I, which leaves the project out of the path

import prefactor_core  # noqa: E402 -- as above
from tests.support.virtual_time import VirtualLoop  # noqa: E402 -- as above

_SLOWER = 30.0


class SlowLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds are long."""

    def time(self) -> float:
        return super().time() / _SLOWER


LOOPS: dict[str, type[asyncio.AbstractEventLoop]] = {"virtual": VirtualLoop, "slow": SlowLoop}


class Policy(asyncio.DefaultEventLoopPolicy):
    """Makes the event loops of all tests."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return LOOPS[sys.argv[2]]()


class Outcome:
    """Notes which tests pass, and which fail, in whatever phase."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


def no_network(*_: object, **__: object) -> NoReturn:
    raise socket.gaierror("published suites are run without a network")


def main() -> None:
    source = sys.argv[1]
    socket.getaddrinfo = no_network
    asyncio.set_event_loop_policy(Policy())
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    outcome = Outcome()
    options = ["--rootdir", source, "--config-file", os.devnull, "--override-ini", "asyncio_mode=auto"]
    options += ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "--import-mode=importlib"]
    status = pytest.main([*options, "--tb=short", *sys.argv[3:], f"{source}/tests"], plugins=[outcome])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        sys.exit(status)
    report = {
        "sdk": prefactor_core.__file__,
        "passed": sorted(outcome.passed - outcome.failed),
        "failed": sorted(outcome.failed),
    }
    print(json.dumps(report))  # noqa: T201 -- a program speaks to the test that started it


main()
