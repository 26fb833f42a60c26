"""Why no connection came about, in words: what the other end said says more than the driver's error."""

from collections.abc import Iterator
from typing import Final

import pamqp.frame
from pamqp import commands
from pamqp.exceptions import PAMQPException

from prefactor_rabbitmq.errors import describe
from prefactor_rabbitmq.wire import Wire

_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")
"""How an alert and a greeting of TLS begin."""
_LOGIN_REFUSED: Final = 403
_NOT_ALLOWED: Final = 530


def why_not_connected(error: BaseException, wire: Wire, scheme: str) -> str:
    """Say why a broker cannot be used, and what to look at.

    Args:
        error: What the driver, the network or the time limit raised.
        wire: The socket, if there was one, and what came through it.
        scheme: ``amqp`` or ``amqps``.
    """
    reason = describe(error)
    if not wire.connected:
        return _no_socket(reason, tls=scheme == "amqps")
    for frame in _frames(bytes(wire.said)):
        if isinstance(frame, commands.Connection.Close):
            return _closed(frame.reply_code, frame.reply_text or "no reason was given")
    if wire.said.startswith(_TLS_RECORDS):
        return "it speaks TLS on this port: the scheme is amqps://"
    if not wire.said:
        hint = "" if scheme == "amqps" else ", and does it speak TLS (amqps://)"
        return (
            f"it took the connection and did not answer as RabbitMQ does ({reason}); is the port right{hint}?"
        )
    if not any(isinstance(frame, commands.Connection.Start) for frame in _frames(bytes(wire.said))):
        return "it answered something that is no AMQP 0-9-1; is the port right?"
    return reason


def _no_socket(reason: str, *, tls: bool) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            f"it has a certificate that is not accepted: {_certificate(reason)}. It has to be valid, made "
            "for the host in the URL, and of an authority that is trusted here (SSL_CERT_FILE names others)"
        )
    if "SSL" in reason:
        return f"it speaks no TLS on this port ({reason}); is the port right, or is the scheme amqp://?"
    hint = " Does it speak TLS on this port?" if tls else ""
    return f"it cannot be reached; is it running, and are host and port right?{hint} ({reason})"


def _certificate(reason: str) -> str:
    """Return OpenSSL's sentence without its brackets."""
    return reason.partition("certificate verify failed: ")[2].partition(" (_ssl")[0].rstrip(".") or reason


def _closed(code: int | None, text: str) -> str:
    if code == _LOGIN_REFUSED:
        return f"it does not accept the user and password of the URL ({text})"
    if code == _NOT_ALLOWED and "not found" in text:
        return f"it has no virtual host of the name in the URL's path ({text})"
    if code == _NOT_ALLOWED and "access to vhost" in text:
        return f"it does not let this user into the virtual host; grant permissions there ({text})"
    return f"it closed the connection: {text}"


def _frames(data: bytes) -> Iterator[object]:
    """Return the AMQP frames at the beginning of something."""
    while data:
        try:
            consumed, _, frame = pamqp.frame.unmarshal(data)
        except PAMQPException:
            return
        yield frame
        data = data[consumed:]
