"""Errors of the driver: each becomes ``BrokerError``, and says what it means."""

import inspect

import pytest
from redis import exceptions as driver

from prefactor_core.transport import BrokerError
from prefactor_redis.errors import DRIVER_ERRORS, mapped, meaning


def make(kind: type[Exception]) -> Exception:
    if issubclass(kind, driver.AskError):
        return kind("1234 127.0.0.1:7001")
    try:
        return kind("text of the server")
    except TypeError:  # some take no text, or more
        return kind.__new__(kind)


def test_every_error_of_the_driver_and_the_network_is_mapped(subtests: pytest.Subtests) -> None:
    errors = [
        make(found)
        for _, found in inspect.getmembers(driver, inspect.isclass)
        if issubclass(found, Exception) and found.__module__ == driver.__name__
    ]
    assert len(errors) > 30
    for error in [*errors, OSError("gone"), ConnectionResetError(), TimeoutError()]:
        with subtests.test(error=error):
            with pytest.raises(BrokerError, match="Redis at x") as raised, mapped("Redis at x"):
                raise error
            assert raised.value.__cause__ is error
            assert raised.value.confirmed == 0


def test_other_errors_go_through() -> None:
    with pytest.raises(ZeroDivisionError), mapped("Redis"):
        raise ZeroDivisionError
    with pytest.raises(BrokerError, match="ours"), mapped("Redis"):
        raise BrokerError("ours", 3)
    assert not issubclass(BrokerError, DRIVER_ERRORS)


def test_what_errors_mean() -> None:
    for error, says in (
        (driver.OutOfMemoryError("x"), "is full"),
        (driver.AuthenticationError("x"), "user and password"),
        (driver.BusyLoadingError("x"), "loading"),
        (driver.ReadOnlyError("x"), "replica"),
        (driver.MovedError("1 a:1"), "cluster"),
        (driver.MasterDownError("x"), "cluster"),
        (driver.TimeoutError("x"), "in time"),
        (TimeoutError(), "in time"),
        (driver.MaxConnectionsError("x"), "no connection free"),
        (driver.ConnectionError("x"), "cannot be reached"),
        (driver.NoPermissionError("x"), "does not permit"),
        (driver.ResponseError("x"), "refused a command: x"),
        (driver.DataError("x"), "DataError"),
    ):
        assert says in meaning(error), repr(error)
    error = driver.ResponseError("unknown command 'X', with args beginning with: 'secret' 'more\n' ")
    assert meaning(error) == "refused a command: unknown command 'X'", "no payload is repeated"
