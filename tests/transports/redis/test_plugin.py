"""The door: the plugin makes a queue of a URL, or says what is missing."""

import builtins
import sys
from types import ModuleType
from typing import Any

import pytest

from prefactor_core import PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import MissingDriverError, TransportError
from prefactor_core.plugins import create_queue
from prefactor_redis import plugin

CONFIG = PrefactorCoreConfig()


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://h/1", "redis+cluster://a,b", "redis+sentinel://a,b/main"]
)
def test_a_queue_for_each_scheme(url: str) -> None:
    queue = create_queue(url, CONFIG)
    assert isinstance(queue, BrokerQueue)


def test_other_schemes_are_left_to_others() -> None:
    assert plugin.prefactor_create_queue("memory://", CONFIG) is None


def test_a_wrong_url() -> None:
    with pytest.raises(TransportError, match="database"):
        create_queue("redis://h/x", CONFIG)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: ImportError) -> None:
    """Have the import of a module fail, and those of ours happen again."""
    real = builtins.__import__

    def imported(wanted: str, *args: Any, **kwargs: Any) -> ModuleType:
        if wanted == name or wanted.startswith(f"{name}."):
            raise error
        return real(wanted, *args, **kwargs)

    for module in list(sys.modules):
        if module.startswith("prefactor_redis.") and module != plugin.__name__:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", imported)


def test_without_the_driver_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "redis", ModuleNotFoundError("No module named 'redis'", name="redis"))
    with pytest.raises(MissingDriverError, match=r"pip install 'prefactor-core\[redis\]'"):
        plugin.prefactor_create_queue("redis://h", CONFIG)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'redis.asyncio'", name="redis.asyncio"),
        ModuleNotFoundError("No module named 'ssl'", name="ssl"),
        ImportError("cannot import name 'X' from 'redis'", name="redis"),
    ],
)
def test_other_import_errors_go_through(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    refuse(monkeypatch, "redis", error)
    with pytest.raises(ImportError) as raised:
        plugin.prefactor_create_queue("redis://h", CONFIG)
    assert raised.value is error
