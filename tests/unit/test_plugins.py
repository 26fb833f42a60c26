"""How transports are found: through entry points, the built-in one like everybody else's."""

import importlib
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pluggy import PluginValidationError

from prefactor_core import (
    InMemoryQueue,
    PrefactorCoreConfig,
    TransportError,
    UnknownTransportError,
)
from prefactor_core.hookspecs import ENTRY_POINT_GROUP
from prefactor_core.plugins import create_queue, installed_transports

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
