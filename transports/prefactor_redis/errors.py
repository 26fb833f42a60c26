"""The one place where errors of the driver and the network become ``BrokerError``."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from redis import exceptions as driver

from prefactor_core.transport import BrokerError

DRIVER_ERRORS: Final = (
    driver.RedisError,
    driver.RedisClusterException,
    driver.ChildDeadlockedError,
    driver.IncorrectPolicyType,
    OSError,  # timeouts of our own, too
)
"""Everything that the driver raises."""

_CLUSTER: Final = "its cluster is rearranging itself or is down: {text}"
_NO_REDIS: Final = "answered something that is no Redis protocol"
_LOGIN: Final = "does not accept the user and password of the URL: {text}"

_MEANINGS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (driver.OutOfMemoryError, "is full: raise its maxmemory, or let workers drain it"),
    (driver.NoPermissionError, "does not permit this user a command or key: {text}"),
    (driver.AuthenticationError, _LOGIN),
    (driver.AuthenticationWrongNumberOfArgsError, _LOGIN),
    (driver.AuthorizationError, _LOGIN),
    (driver.BusyLoadingError, "is loading its data"),
    (driver.MaxConnectionsError, "had no connection free in time"),
    (driver.ReadOnlyError, "is a replica, which takes no writes"),
    (driver.ClusterError, _CLUSTER),
    (driver.AskError, _CLUSTER),
    (driver.TryAgainError, _CLUSTER),
    (driver.RedisClusterException, _CLUSTER),
    (driver.InvalidResponse, _NO_REDIS),
    (driver.TimeoutError, "did not answer in time"),
    (TimeoutError, "did not answer in time"),
    (driver.ConnectionError, "cannot be reached; is it running, and are host and port right? {text}"),
    (OSError, "cannot be reached; is it running, and are host and port right? {text}"),
    (driver.ResponseError, "refused a command: {text}"),
)
"""What the errors mean, special ones before general ones."""

# An unknown command is answered with its arguments, and these may be payloads.
_ARGUMENTS: Final = re.compile(r",? with args beginning with.*", re.DOTALL)
_LONGEST: Final = 300


@contextmanager
def mapped(name: str, explain: Callable[[BaseException], str] | None = None) -> Iterator[None]:
    """Turn what the driver raises inside into ``BrokerError``.

    Args:
        name: What to call the server; no credentials in it.
        explain: Returns what an error means, where more is known than it says.
    """
    try:
        yield
    except DRIVER_ERRORS as error:
        raise BrokerError(f"{name} {(explain or meaning)(error)}") from error


def why_not_connected(error: BaseException, *, tls: bool) -> str:
    """Say what an error means that came before there was a connection; never a password."""
    text = str(error)[:_LONGEST]
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0].rstrip(".") or text
        return (
            f"has a certificate that is not accepted: {why}. It has to be valid, made for the host in the "
            "URL, and of an authority that is trusted here (SSL_CERT_FILE names others)"
        )
    if tls and isinstance(error, driver.TimeoutError | TimeoutError):
        return "did not answer in time; does it speak TLS on this port, or is the scheme redis://?"
    if "[SSL" in text:
        return f"speaks no TLS on this port; is the port right, or is the scheme redis://? {text}"
    if not tls and isinstance(error, driver.InvalidResponse):
        return f"{_NO_REDIS}; is the port right, and does it speak TLS (rediss://)?"
    # With the words "connecting to" the driver says that there was no socket.
    if not tls and type(error) is driver.ConnectionError and "connecting to" not in text:
        return f"closed the connection at once; is the port right, and does it speak TLS (rediss://)? {text}"
    return meaning(error)


def meaning(error: BaseException) -> str:
    """Say what an error of the driver means; never a payload or a password."""
    text = _ARGUMENTS.sub("", str(error))[:_LONGEST]
    for kind, sentence in _MEANINGS:
        if isinstance(error, kind):
            return sentence.format(text=text).strip()
    return f"failed: {type(error).__name__}: {text}"
