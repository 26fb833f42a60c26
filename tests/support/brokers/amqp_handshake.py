"""The shortest AMQP connection: is there a broker that lets one in?"""

import socket

from pamqp import commands, frame, header
from pamqp.base import Frame
from pamqp.exceptions import PAMQPException

from tests.support.brokers.process import ServerProcess
from tests.support.brokers.waiting import wait_until

_ANSWER_SECONDS = 5.0
_HEAD = 7  # bytes before a frame's content: its type, channel and size


def wait_for_amqp(host: str, port: int, *, seconds: float, process: ServerProcess | None = None) -> None:
    """Wait until a broker opens the virtual host ``/`` for ``guest``."""

    def accepts() -> bool:
        if process is not None:
            process.check()
        return _log_in(host, port, min(seconds, _ANSWER_SECONDS))

    wait_until(
        accepts,
        f"a RabbitMQ that accepts connections at {host}:{port}",
        seconds=seconds,
        errors=(OSError, PAMQPException),
        details=str if process is None else process.tail,
    )


def _log_in(host: str, port: int, seconds: float) -> bool:
    with socket.create_connection((host, port), timeout=seconds) as wire:
        wire.sendall(frame.marshal(header.ProtocolHeader(), 0))
        _receive(wire)
        _send(wire, commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
        tune = _receive(wire)
        if not isinstance(tune, commands.Connection.Tune):
            return False
        _send(wire, commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
        _send(wire, commands.Connection.Open("/"))
        opened = isinstance(_receive(wire), commands.Connection.OpenOk)
        _send(wire, commands.Connection.Close(200, "bye", 0, 0))
        _receive(wire)
        return opened


def _send(wire: socket.socket, method: Frame) -> None:
    wire.sendall(frame.marshal(method, 0))


def _receive(wire: socket.socket) -> object:
    """Return the next method."""
    head = _read(wire, _HEAD)
    size = int.from_bytes(head[-4:], "big")
    return frame.unmarshal(head + _read(wire, size + 1))[2]


def _read(wire: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = wire.recv(size - len(received))
        if not piece:
            raise ConnectionResetError("closed by the broker")
        received += piece
    return received
