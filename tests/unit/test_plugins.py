"""How transports and observers are found: through entry points, the built-in one like everybody else's."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pluggy import PluginValidationError

from prefactor_core import (
    DeadLetter,
    InMemoryQueue,
    PrefactorCoreConfig,
    TaskExecutor,
    TransportError,
    UnknownTransportError,
)
from prefactor_core.hookspecs import ENTRY_POINT_GROUP, hookimpl
from prefactor_core.plugins import create_queue, installed_transports, observers

CONFIG = PrefactorCoreConfig()
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs a distribution whose transport is a module with that source."""

    def install(scheme: str, source: str) -> None:
        module = f"throwaway_{scheme}"
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{scheme} = {module}\n")
        (tmp_path / f"{module}.py").write_text(f"from prefactor_core.hookspecs import hookimpl\n{source}")
        monkeypatch.setitem(sys.modules, module, None)  # so that the module goes when the test ends
        monkeypatch.delitem(sys.modules, module)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_memory_is_built_through_its_entry_point() -> None:
    (entry,) = entry_points(group=ENTRY_POINT_GROUP, name="memory")
    assert entry.value == "prefactor_core.queue.memory"
    assert "memory" in installed_transports()
    for url in ("memory://", "memory:", "memory:///"):
        assert isinstance(create_queue(url, CONFIG), InMemoryQueue)


@pytest.mark.parametrize("bound", [{"buffer_operations": 2}, {"buffer_bytes": 600}])
async def test_the_queue_has_the_bounds_of_the_configuration(bound: dict[str, int]) -> None:
    queue = create_queue("memory://", PrefactorCoreConfig(**bound))  # type: ignore[arg-type]
    for number in range(20):
        await queue.put(number)
    assert 1 <= queue.size() <= 2
    assert queue.dropped == {"item": 20 - queue.size()}


def test_a_url_that_its_transport_does_not_take(subtests: pytest.Subtests) -> None:
    neither = "memory:// takes neither a host nor options"
    refused = dict.fromkeys(["memory://host", "memory://:6379", "memory:///path", "memory://?a=b"], neither)
    refused |= dict.fromkeys(["memory://user@/", "memory://user:S3CRET@host"], neither)
    refused |= dict.fromkeys(["memory://[", "memory://[::1", "redis://[zz]/"], "transport_url")
    refused["gone://user:S3CRET@host/x?password=S3CRET"] = "installed are "
    for url, problem in refused.items():
        with subtests.test(url):
            with pytest.raises(TransportError, match=problem) as caught:
                create_queue(url, CONFIG)
            assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize("url", ["carrier-pigeon://coop", "", "memory", "//host", "unknown:", ":"])
def test_an_unknown_scheme_lists_what_is_installed(url: str, install: Install) -> None:
    install("zeppelin", "raise AssertionError('only the plugin of the scheme is imported')\n")
    with pytest.raises(UnknownTransportError) as refused:
        create_queue(url, CONFIG)
    listed = str(refused.value).partition("installed are ")[2].split(", ")
    assert listed == sorted(listed) == installed_transports()
    assert {"memory", "zeppelin"} <= set(listed)


def test_a_third_party_transport_comes_in_and_gets_url_and_configuration(install: Install) -> None:
    install(
        "third",
        "from prefactor_core import InMemoryQueue\n"
        "@hookimpl\n"
        "def prefactor_create_queue(url, config):\n"
        "    queue = InMemoryQueue()\n"
        "    queue.given = (url, config)\n"
        "    return queue\n",
    )
    queue = create_queue("third://host?a=b", CONFIG)
    assert vars(queue)["given"] == ("third://host?a=b", CONFIG)
    assert isinstance(create_queue("memory://", CONFIG), InMemoryQueue), "and disturbs no other"


@pytest.mark.parametrize("returned", ["None", "object()", "InMemoryQueue"])
def test_a_plugin_that_makes_no_queue_is_an_error(returned: str, install: Install) -> None:
    hook = f"@hookimpl\ndef prefactor_create_queue(url): return {returned}\n"
    install("broken", f"from prefactor_core import InMemoryQueue\n{hook}")
    with pytest.raises(TransportError, match="broken:// made no Queue"):
        create_queue("broken://", CONFIG)


@pytest.mark.parametrize(
    ("hook", "named"),
    [
        ("prefactor_make_queue(url, config)", "prefactor_make_queue"),
        ("prefactor_create_queue(url, options)", "options"),
    ],
)
def test_a_misspelt_hook_or_argument_is_an_error(hook: str, named: str, install: Install) -> None:
    install("misspelt", f"@hookimpl\ndef {hook}: return None\n")
    with pytest.raises(PluginValidationError, match=named):
        create_queue("misspelt://", CONFIG)


# -- observers: told of everything that is disposed of, and in nobody's way


class Observer:
    def __init__(self) -> None:
        self.settled: list[str] = []
        self.dead: list[str] = []

    @hookimpl
    def prefactor_disposed(self, settled: Sequence[str], dead: Sequence[DeadLetter[str]]) -> None:
        self.settled += settled
        self.dead += [dead.item for dead in dead]


class Broken:
    @hookimpl
    def prefactor_disposed(self) -> None:
        raise RuntimeError("an observer's own mistake")


async def carry_out(item: str) -> None:
    if item.startswith("bad"):
        raise ValueError(item)


async def run(*own: object) -> TaskExecutor:
    queue: InMemoryQueue[str] = InMemoryQueue()
    executor = TaskExecutor(queue, carry_out, max_retries=0, observe=observers(*own))
    executor.start()
    for item in ("good-1", "bad-1", "good-2"):
        await queue.put(item)
    async with asyncio.timeout(10):
        await executor.stop()
    return executor


async def test_every_observer_is_told() -> None:
    first, second = Observer(), Observer()
    await run(first, second)
    for observer in (first, second):
        assert (sorted(observer.settled), observer.dead) == (["good-1", "good-2"], ["bad-1"])


async def test_an_observer_that_fails_costs_nothing_but_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    executor = await run(Broken())
    assert (executor.account.settled, executor.account.dead_lettered) == (2, 1)
    assert "an observer fails, and misses what is disposed of: RuntimeError" in caplog.text


def test_without_observers_nobody_is_told_and_a_misspelt_hook_is_an_error() -> None:
    assert observers() is None

    class Misspelt:
        @hookimpl
        def prefactor_dispossed(self) -> None:
            """Never called."""

    with pytest.raises(Exception, match="prefactor_dispossed"):
        observers(Misspelt())
