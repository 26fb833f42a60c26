"""What a URL may say, and what never shows of it."""

import logging

import aiormq
import pytest
from yarl import URL

from prefactor_core.transport import BrokerError, TransportError
from prefactor_rabbitmq.broker import RabbitBroker
from prefactor_rabbitmq.options import Address

SECRET = "s3cr3t"


async def test_addresses() -> None:
    hosts: tuple[tuple[str, int], ...]
    for url, hosts, vhost in (
        ("amqp://broker", (("broker", 5672),), "/"),
        ("amqp://broker/", (("broker", 5672),), "/"),
        ("amqp://broker//", (("broker", 5672),), "/"),
        ("amqp://broker/%2F", (("broker", 5672),), "/"),
        ("amqp://broker/agents", (("broker", 5672),), "agents"),
        ("amqp://broker/a%2Fb%40c", (("broker", 5672),), "a/b@c"),
        ("amqps://broker", (("broker", 5671),), "/"),
        ("amqp://u:p@a:1,b,c:3/v", (("a", 1), ("b", 5672), ("c", 3)), "v"),
        ("amqp://[::1]:7,[fe80::1]/", (("[::1]", 7), ("[fe80::1]", 5672)), "/"),
        ("amqp://u:p%40%2F%23@a/", (("a", 5672),), "/"),
    ):
        address, _ = Address.parse(url)
        assert (address.hosts, address.vhost) == (hosts, vhost), url
        for host, port in hosts:  # and the driver understands it
            connection = aiormq.Connection(URL(address.url((host, port), 7)))
            assert (connection.url.host, connection.url.port) == (host.strip("[]"), port)
            assert (connection.vhost, connection.heartbeat_timeout) == (vhost, 7), url
    address, _ = Address.parse("amqp://us%40er:p%40%2F%23%25@host/")
    meant = aiormq.Connection(URL(address.url(address.hosts[0], 10))).url
    assert (meant.user, meant.password) == ("us@er", "p@/#%"), "credentials reach the driver as meant"


def test_wrong_urls_name_the_field_and_no_secret(subtests: pytest.Subtests) -> None:
    for url, field in (
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
    ):
        with subtests.test(url=url):
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
