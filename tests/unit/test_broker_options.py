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


TAKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("redis://host/0", "", {}),
    ("redis://host", "", {}),
    ("redis://host/0", "?", {}),
    ("redis://host/0", "?prefix=agents", {"prefix": "agents"}),
    ("redis://h", "?prefix=A.b_c-9", {"prefix": "A.b_c-9"}),
    ("redis://h", f"?prefix={'x' * 64}", {"prefix": "x" * 64}),
    ("amqp://u:p@h:5672/vhost", "?partitions=1", {"partitions": 1}),
    ("redis://h", f"?partitions={MAX_PARTITIONS}", {"partitions": MAX_PARTITIONS}),
    ("redis://h", "?timeout=0.5&partitions=32", {"timeout": 0.5, "partitions": 32}),
    ("redis://h", "?timeout=600", {"timeout": 600.0}),
    ("redis://h", "?prefix=a%2Db", {"prefix": "a-b"}),
    ("redis://h/%2Fv%20host", "?prefix=a#part", {"prefix": "a"}),
    ("redis://h1:1,h2:2,[::1]:3/0", "?prefix=a", {"prefix": "a"}),
]


def test_what_is_taken(subtests: pytest.Subtests) -> None:
    for bare, query, expected in TAKEN:
        with subtests.test(bare + query):
            assert split_options(bare + query, BrokerOptions) == (bare, BrokerOptions(**expected))


def test_the_defaults() -> None:
    options = split_options("redis://h", BrokerOptions)[1]
    assert (options.prefix, options.partitions) == (DEFAULT_PREFIX, DEFAULT_PARTITIONS) == ("prefactor", 16)
    assert options.timeout == 10.0


REFUSED: dict[str, list[str]] = {
    "prefix": [f"{SECRET}!", "", "x" * 65, "a%0A", "a{1}"],
    "partitions": ["0", "-1", str(MAX_PARTITIONS + 1), SECRET, "1.5", ""],
    "timeout": ["0", "601", "nan", "inf", SECRET],
    "lease": [SECRET, "0.5"],
    "tls_check": [SECRET],
    "Prefix": [SECRET],
    "unknown": [SECRET],
    "zzz": [f"{SECRET}&prefix=a"],
}


def test_a_refusal_names_the_option_and_those_that_there_are_and_no_value(subtests: pytest.Subtests) -> None:
    for name, value in ((name, value) for name, values in REFUSED.items() for value in values):
        with subtests.test(f"{name}={value}"):
            with pytest.raises(TransportError) as caught:
                split_options(f"redis://user:{SECRET}@{SECRET}.example/0?{name}={value}", MoreOptions)
            message = str(caught.value)
            assert f"option {name}: " in message
            assert "known are lease, partitions, prefix, timeout, tls_check" in message
            assert SECRET not in message
            assert caught.value.__cause__ is None
            assert caught.value.__suppress_context__


def test_what_is_no_option_or_given_twice() -> None:
    for query in (SECRET, f"prefix=a&{SECRET}", "&&", f"prefix;{SECRET}"):
        with pytest.raises(
            TransportError, match=r"^transport_url: its options are not name=value; known are "
        ) as no:
            split_options(f"redis://user:{SECRET}@h?{query}", BrokerOptions)
        assert SECRET not in str(no.value)
    with pytest.raises(TransportError) as caught:
        split_options(f"redis://h?prefix={SECRET}&prefix=b", BrokerOptions)
    assert str(caught.value) == "transport_url: an option is given twice"


def test_options_of_a_transport_beside_the_shared_ones() -> None:
    options = split_options("redis://h?lease=12&tls_check=false&prefix=p", MoreOptions)[1]
    assert options == MoreOptions(prefix="p", lease=12.0, tls_check=False)
