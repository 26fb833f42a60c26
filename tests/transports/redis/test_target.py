"""URLs: what they name, what is wrong with them, and what stays secret."""

import pytest

from prefactor_core.transport import TransportError
from prefactor_redis.broker import RedisBroker
from prefactor_redis.target import Access, Address, read_target

SECRET = "hunter2"


def test_what_a_url_names() -> None:
    for url, kind, addresses, access, service in (
        ("redis://host", "server", [("host", 6379)], Access(), ""),
        ("redis://host:7000/3", "server", [("host", 7000)], Access(database=3), ""),
        ("redis://host/", "server", [("host", 6379)], Access(), ""),
        ("redis://:pa%40ss@host", "server", [("host", 6379)], Access(password="pa@ss"), ""),
        ("redis://me:a%3Ab@host/1", "server", [("host", 6379)], Access("me", "a:b", 1), ""),
        ("rediss://host:1", "server", [("host", 1)], Access(tls=True), ""),
        ("redis://[::1]:7", "server", [("::1", 7)], Access(), ""),
        ("redis+cluster://a:1,b,c:3", "cluster", [("a", 1), ("b", 6379), ("c", 3)], Access(), ""),
        ("redis+cluster://u:p@a:1,b:2", "cluster", [("a", 1), ("b", 2)], Access("u", "p"), ""),
        ("redis+sentinel://a:1,b/m/2", "sentinel", [("a", 1), ("b", 26379)], Access(database=2), "m"),
        ("redis+sentinel://:p@a/main", "sentinel", [("a", 26379)], Access(password="p"), "main"),
    ):
        target = read_target(url)
        named = (target.kind, target.addresses, target.access, target.service)
        assert named == (kind, tuple(Address(*address) for address in addresses), access, service), url


def test_options() -> None:
    options = read_target("redis://h?prefix=a&partitions=3&timeout=2&lease=5&replicas=1").options
    assert (options.prefix, options.partitions, options.timeout) == ("a", 3, 2)
    assert (options.lease, options.replicas) == (5, 1)
    assert read_target("redis://h").options.lease == 15


def test_what_is_wrong_with_a_url(subtests: pytest.Subtests) -> None:
    for url, named in (
        ("redis://", "host is missing"),
        ("redis:///0", "host is missing"),
        (f"redis://:{SECRET}@/0", "host is missing"),
        (f"redis://:{SECRET}@host:port", "host or port is wrong"),
        (f"redis://:{SECRET}@host:0", "host is missing"),
        (f"redis://:{SECRET}@host:70000", "host or port is wrong"),
        (f"redis://:{SECRET}@host/zero", "database is not a number"),
        (f"redis://:{SECRET}@host/-1", "database is not a number"),
        (f"redis://:{SECRET}@host/1/2", "too many parts"),
        (f"redis://{SECRET}@host", "without a password"),
        (f"redis://:{SECRET}@a,b", "several hosts"),
        (f"redis://:{SECRET}@[::1", "no URL"),
        (f"redis+cluster://:{SECRET}@a/1", "no databases"),
        (f"redis+cluster://:{SECRET}@a,,b", "host is missing"),
        (f"redis+sentinel://:{SECRET}@a", "service is missing"),
        (f"redis+sentinel://:{SECRET}@a/main/x", "database is not a number"),
        (f"redis://:{SECRET}@host?colour={SECRET}", "option colour"),
        (f"redis://:{SECRET}@host?lease=0.5", "option lease"),
        (f"redis://:{SECRET}@host?replicas=-1", "option replicas"),
        (f"redis://:{SECRET}@host?lease=5&lease={SECRET}", "twice"),
    ):
        with subtests.test(url=url):
            with pytest.raises(TransportError, match=named) as raised:
                RedisBroker(url)
            assert SECRET not in str(raised.value)


def test_names_hold_no_credentials() -> None:
    for url, name in (
        (f"redis://me:{SECRET}@host/2?prefix=p", "redis://host:6379/2?prefix=p"),
        (f"rediss://:{SECRET}@host", "rediss://host:6379?prefix=prefactor"),
        (f"redis+cluster://me:{SECRET}@a:1,b:2", "redis+cluster://a:1,b:2?prefix=prefactor"),
        (f"redis+sentinel://:{SECRET}@a/main/3", "redis+sentinel://a:26379/main/3?prefix=prefactor"),
    ):
        assert RedisBroker(url).name == name
        shown = repr(read_target(url))
        assert SECRET not in shown
        assert "'me'" not in shown, url
    assert "hidden" not in repr(Access("hidden", "hidden"))
