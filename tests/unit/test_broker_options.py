"""Options in a broker's URL: what is taken, and what a refusal says."""

from typing import Annotated, Any

import pytest
from pydantic import Field

from prefactor_core.broker.options import (
    DEFAULT_PARTITIONS,
    DEFAULT_PREFIX,
    MAX_PARTITIONS,
    BrokerOptions,
    split_options,
)
from prefactor_core.exceptions import TransportError

SECRET = "hunter2-do-not-print"


class MoreOptions(BrokerOptions):
    """A transport's own."""

    lease: Annotated[float, Field(ge=1)] = 30.0
    tls_check: bool = True


@pytest.mark.parametrize(
    ("url", "bare", "expected"),
    [
        ("redis://host/0", "redis://host/0", {}),
        ("redis://host", "redis://host", {}),
        ("redis://host/0?", "redis://host/0", {}),
        ("redis://host/0?prefix=agents", "redis://host/0", {"prefix": "agents"}),
        ("redis://h?prefix=A.b_c-9", "redis://h", {"prefix": "A.b_c-9"}),
        (f"redis://h?prefix={'x' * 64}", "redis://h", {"prefix": "x" * 64}),
        ("amqp://u:p@h:5672/vhost?partitions=1", "amqp://u:p@h:5672/vhost", {"partitions": 1}),
        (f"redis://h?partitions={MAX_PARTITIONS}", "redis://h", {"partitions": MAX_PARTITIONS}),
        ("redis://h?timeout=0.5&partitions=32", "redis://h", {"timeout": 0.5, "partitions": 32}),
        ("redis://h?timeout=600", "redis://h", {"timeout": 600.0}),
        ("redis://h?prefix=a%2Db", "redis://h", {"prefix": "a-b"}),
        ("redis://h/%2Fv%20host?prefix=a#part", "redis://h/%2Fv%20host", {"prefix": "a"}),
        ("redis://h1:1,h2:2,[::1]:3/0?prefix=a", "redis://h1:1,h2:2,[::1]:3/0", {"prefix": "a"}),
    ],
)
def test_what_is_taken(url: str, bare: str, expected: dict[str, Any]) -> None:
    found, options = split_options(url, BrokerOptions)
    assert found == bare
    assert options == BrokerOptions(**expected)


def test_the_defaults() -> None:
    options = split_options("redis://h", BrokerOptions)[1]
    assert (options.prefix, options.partitions) == (DEFAULT_PREFIX, DEFAULT_PARTITIONS) == ("prefactor", 16)
    assert options.timeout == 10.0


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (f"prefix={SECRET}!", "prefix"),
        ("prefix=", "prefix"),
        (f"prefix={'x' * 65}", "prefix"),
        ("prefix=a%0A", "prefix"),
        ("prefix=a{1}", "prefix"),
        ("partitions=0", "partitions"),
        ("partitions=-1", "partitions"),
        (f"partitions={MAX_PARTITIONS + 1}", "partitions"),
        (f"partitions={SECRET}", "partitions"),
        ("partitions=1.5", "partitions"),
        ("partitions=", "partitions"),
        ("timeout=0", "timeout"),
        ("timeout=601", "timeout"),
        ("timeout=nan", "timeout"),
        ("timeout=inf", "timeout"),
        (f"timeout={SECRET}", "timeout"),
        (f"lease={SECRET}", "lease"),
        ("lease=0.5", "lease"),
        (f"tls_check={SECRET}", "tls_check"),
        (f"Prefix={SECRET}", "Prefix"),
        (f"unknown={SECRET}", "unknown"),
        (f"prefix=a&zzz={SECRET}", "zzz"),
    ],
)
def test_a_refusal_names_the_option_and_those_that_there_are_and_no_value(query: str, name: str) -> None:
    with pytest.raises(TransportError) as caught:
        split_options(f"redis://user:{SECRET}@{SECRET}.example/0?{query}", MoreOptions)
    message = str(caught.value)
    assert f"option {name}: " in message
    assert "known are lease, partitions, prefix, timeout, tls_check" in message
    assert SECRET not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("query", [SECRET, f"prefix=a&{SECRET}", "&&", f"prefix;{SECRET}"])
def test_what_is_no_option_at_all(query: str) -> None:
    with pytest.raises(TransportError, match=r"^transport_url: its options are not name=value; known are "):
        split_options(f"redis://user:{SECRET}@h?{query}", BrokerOptions)


def test_an_option_given_twice() -> None:
    with pytest.raises(TransportError) as caught:
        split_options(f"redis://h?prefix={SECRET}&prefix=b", BrokerOptions)
    assert str(caught.value) == "transport_url: an option is given twice"


def test_options_of_a_transport_beside_the_shared_ones() -> None:
    options = split_options("redis://h?lease=12&tls_check=false&prefix=p", MoreOptions)[1]
    assert options == MoreOptions(prefix="p", lease=12.0, tls_check=False)
