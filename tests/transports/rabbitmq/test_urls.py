"""What a URL may say, and what never shows of it."""

import builtins
import logging
import sys
from collections.abc import Mapping, Sequence

import aiormq
import pytest
from yarl import URL

from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import BrokerError, MissingDriverError, TransportError
from prefactor_core.plugins import create_queue
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.options import Address

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "hosts", "vhost"),
    [
        ("amqp://broker", (("broker", 5672),), "/"),
        ("amqp://broker/", (("broker", 5672),), "/"),
        ("amqp://broker//", (("broker", 5672),), "/"),
        ("amqp://broker/%2F", (("broker", 5672),), "/"),
        ("amqp://broker/agents", (("broker", 5672),), "agents"),
        ("amqp://broker/a%2Fb%40c", (("broker", 5672),), "a/b@c"),
        ("amqps://broker", (("broker", 5671),), "/"),
        ("amqp://u:p@a:1,b,c:3/v", (("a", 1), ("b", 5672), ("c", 3)), "v"),
        ("amqp://[::1]:7,[fe80::1]/", (("::1", 7), ("fe80::1", 5672)), "/"),
        ("amqp://u:p%40%2F%23@a/", (("a", 5672),), "/"),
    ],
)
async def test_addresses(url: str, hosts: tuple[tuple[str, int], ...], vhost: str) -> None:
    address, _ = Address.parse(url)
    assert address.hosts == hosts
    assert address.vhost == vhost
    for host in hosts:  # and the driver understands it
        connection = aiormq.Connection(URL(address.url(host, 7)))
        assert (connection.url.host, connection.url.port) == host
        assert connection.vhost == vhost
        assert connection.heartbeat_timeout == 7


async def test_credentials_reach_the_driver_as_they_were_meant() -> None:
    address, _ = Address.parse("amqp://us%40er:p%40%2F%23%25@host/")
    url = aiormq.Connection(URL(address.url(address.hosts[0], 10))).url
    assert (url.user, url.password) == ("us@er", "p@/#%")


@pytest.mark.parametrize(
    ("url", "field"),
    [
        (f"amqp://u:{SECRET}@host:99999/", "port"),
        (f"amqp://u:{SECRET}@host:x/", "port"),
        (f"amqp://u:{SECRET}@host:٣/", "port"),
        (f"amqp://u:{SECRET}#1@host/", "%23"),
        (f"amqp://u:12/{SECRET}@host/", "%2F"),
        (f"amqp://u:{SECRET}@/", "host"),
        (f"amqp://u:{SECRET}@a,,b/", "host"),
        (f"amqp://u:{SECRET}@[::1/", "URL"),
        (f"amqp://u:{SECRET}@host/a/b", "vhost"),
        (f"amqp://u:{SECRET}@host/?heartbeat=0", "heartbeat"),
        (f"amqp://u:{SECRET}@host/?heartbeat=16", "heartbeat"),
        (f"amqp://u:{SECRET}@host/?partitions=0", "partitions"),
        (f"amqp://u:{SECRET}@host/?password={SECRET}", "password"),
        (f"amqp://u:{SECRET}@host/?prefix=a%20b", "prefix"),
        (f"redis://u:{SECRET}@host/", "scheme"),
    ],
)
def test_wrong_urls_name_the_field_and_no_secret(url: str, field: str) -> None:
    with pytest.raises(TransportError, match=field) as caught:
        RabbitBroker(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not isinstance(caught.value, BrokerError)


def test_names_hold_no_credentials() -> None:
    broker = RabbitBroker(f"amqp://user:{SECRET}@a:1,b/agents?prefix=fleet")
    assert broker.name == "amqp://a:1,b:5672/agents (fleet)"
    for text in (repr(broker), str(broker), repr(broker._address)):
        assert SECRET not in text
        assert "user" not in text


async def test_logs_and_errors_hold_no_credentials(amqp_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    host = amqp_url.rpartition("@")[2]
    wrong = RabbitBroker(f"amqp://{SECRET}user:{SECRET}@{host}")
    end = wrong.publishing()
    with pytest.raises(BrokerError) as caught:
        await end.publish(0, [b"payload"])
    await end.disconnect()
    assert SECRET not in str(caught.value)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("prefactor")]
    shown = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert SECRET not in "".join(ours + shown)


def test_the_plugin_makes_a_queue() -> None:
    queue = create_queue("amqp://host/?prefix=x", PrefactorCoreConfig(transport_url="amqp://host/"))
    assert isinstance(queue, BrokerQueue)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [("aio_pika", MissingDriverError), ("aiormq", MissingDriverError), ("yarl", ImportError)],
)
def test_only_a_missing_driver_is_called_one(
    missing: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> object:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, globals, locals, fromlist, level)

    for module in [name for name in sys.modules if name.startswith("prefactor_rabbitmq.")]:
        if module != "prefactor_rabbitmq.plugin":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(expected) as caught:
        create_queue("amqp://host/", PrefactorCoreConfig())
    if expected is MissingDriverError:
        assert "pip install 'prefactor-core[rabbitmq]'" in str(caught.value)
    else:
        assert not isinstance(caught.value, MissingDriverError)
