"""The door: the plugins make queues of URLs, or say what is missing."""

import builtins
import sys
from types import ModuleType
from typing import Any

import pytest

from prefactor_core import PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import MissingDriverError, TransportError
from prefactor_core.plugins import create_queue
from prefactor_rabbitmq import plugin as rabbitmq
from prefactor_redis import plugin as redis

CONFIG = PrefactorCoreConfig()


def test_a_queue_for_each_scheme(subtests: pytest.Subtests) -> None:
    several = ["redis+cluster://a,b", "redis+sentinel://a,b/main", "amqp://host/?prefix=x", "amqps://a,b/"]
    for url in ["redis://h", "rediss://h/1", *several]:
        with subtests.test(url=url):
            assert isinstance(create_queue(url, CONFIG), BrokerQueue)
    for plugin in (redis, rabbitmq):
        assert plugin.prefactor_create_queue("memory://", CONFIG) is None, "other schemes are left to others"
    with pytest.raises(TransportError, match="database"):
        create_queue("redis://h/x", CONFIG)


def missing(name: str) -> ImportError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("url", "error", "extra"),
    [
        ("redis://h", missing("redis"), "redis"),
        ("redis://h", missing("redis.asyncio"), None),
        ("redis://h", missing("secrets"), None),
        ("redis://h", ImportError("cannot import name 'X' from 'redis'", name="redis"), None),
        ("amqp://h", missing("aio_pika"), "rabbitmq"),
        ("amqp://h", missing("aiormq"), "rabbitmq"),
        ("amqp://h", missing("yarl"), None),
    ],
    ids=lambda value: str(value) if isinstance(value, ImportError) else "",
)
def test_only_a_missing_driver_is_called_one(
    monkeypatch: pytest.MonkeyPatch, url: str, error: ImportError, extra: str | None
) -> None:
    """It says how to install that; other errors go through."""
    real = builtins.__import__

    def imported(wanted: str, *args: Any, **kwargs: Any) -> ModuleType:
        if error.name and f"{wanted}.".startswith(f"{error.name}."):
            raise error
        return real(wanted, *args, **kwargs)

    for module in list(sys.modules):  # imported again
        if module.startswith(("prefactor_redis.", "prefactor_rabbitmq.")) and not module.endswith(".plugin"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", imported)
    plugin = redis if url.startswith("redis") else rabbitmq
    with pytest.raises(ImportError if extra is None else MissingDriverError) as raised:
        plugin.prefactor_create_queue(url, CONFIG)
    if extra is None:
        assert raised.value is error
    else:
        assert f"pip install 'prefactor-core[{extra}]'" in str(raised.value)
