"""The errors that prefactor-core defines, in one hierarchy.

::

    PrefactorCoreError
    ├── InvalidInputError (also ValueError)        a value was refused before it cost anything
    │   ├── InvalidIdentifierError                 an id that is not a PFID, or belongs elsewhere
    │   └── InvalidPayloadError                    data that is not JSON, or too large
    ├── ClientAlreadyInitializedError              initialize() on a client that is running
    ├── ClientNotInitializedError                  a call before initialize()
    │   └── ClientClosedError                      a call after close()
    ├── InstanceNotFoundError                      an agent instance that this client does not know
    ├── SpanNotFoundError (also KeyError)          a span that is not open in this client
    ├── PrefactorTerminatedError                   the service asks this instance's agent to stop
    ├── OperationError                             why an operation was dead-lettered
    ├── PrefactorTelemetryFailureError             the in-process sender has failed for good
    ├── QueueClosedError                           put() on a closed queue, get() on a closed and empty one
    └── TransportError                             a transport URL that cannot be served
        ├── UnknownTransportError                  no plugin for the URL's scheme
        ├── MissingDriverError                     the plugin is there, its driver is not
        └── BrokerError                            a broker is unavailable, or did not do what it was asked

Agent code never meets an error of the network: it becomes the reason on a dead letter, or a log line. Only
workers, operators and transports meet ``BrokerError``.
"""

from typing import Any


class PrefactorCoreError(Exception):
    """Base of the errors that prefactor-core defines."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied and unpickled without __init__, whose arguments are not always ``args``.
        return type(self).__new__, (type(self), *self.args), vars(self)


class InvalidInputError(PrefactorCoreError, ValueError):
    """A value was refused before anything was done with it.

    Attributes:
        field: The argument, or the path inside it, that was wrong (``payload.messages[3].score``).
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class InvalidIdentifierError(InvalidInputError):
    """An id that is not a PFID, or that names something of another instance."""


class InvalidPayloadError(InvalidInputError):
    """Data that cannot be sent as JSON, or that is larger than one operation may be."""


class ClientAlreadyInitializedError(PrefactorCoreError):
    """``initialize()`` was called on a client that is running."""


class ClientNotInitializedError(PrefactorCoreError):
    """The client was used before ``initialize()`` (or outside its ``async with``)."""


class ClientClosedError(ClientNotInitializedError):
    """The client was used after ``close()``. It can be initialised again."""


class InstanceNotFoundError(PrefactorCoreError):
    """The client holds no such agent instance."""


class SpanNotFoundError(PrefactorCoreError, KeyError):
    """The span is not open in this client: never opened here, or finished already."""

    # KeyError shows the repr of its argument; a message is for reading.
    __str__ = Exception.__str__


class PrefactorTerminatedError(PrefactorCoreError):
    """The service asks this instance's agent to stop.

    Attributes:
        reason: What the service gave as its reason, if it did.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(f"terminated by the service: {reason}" if reason else "terminated by the service")
        self.reason = reason


class OperationError(PrefactorCoreError):
    """Why an operation was dead-lettered; the reason on its dead letter.

    Attributes:
        operation_type: Name of the ``OperationType``, where the operation had one.
        status_code: The HTTP status of the API's reply, where there was one.
        code: The API's own code for the error, where it gave one.
    """

    def __init__(
        self,
        message: str,
        operation_type: str | None = None,
        status_code: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.operation_type = operation_type
        self.status_code = status_code
        self.code = code


class PrefactorTelemetryFailureError(PrefactorCoreError):
    """Telemetry has failed for good in this process (the API refuses the token).

    Raised by the calls that follow the failure and, once, by ``close()``. What was queued is dropped and
    counted; initialise the client again with a working token to go on.

    Attributes:
        cause: The error that ended delivery; an ``OperationError`` with the API's status and code.
        operation_type: Name of the type of the operation that met it, or of the first that waited then.
        dropped_operations: What will not be delivered, so far: operations that were queued, and calls that
            would have queued more and raised this error.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: Exception,
        operation_type: str | None = None,
        dropped_operations: int = 0,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.operation_type = operation_type
        self.dropped_operations = dropped_operations


class QueueClosedError(PrefactorCoreError):
    """The queue is closed: nothing can be put, and what it held has been handed out."""


class TransportError(PrefactorCoreError):
    """A transport URL cannot be served."""


class UnknownTransportError(TransportError):
    """No installed transport serves the URL's scheme."""


class MissingDriverError(TransportError):
    """The transport is installed, the driver library that it needs is not."""


class BrokerError(TransportError):
    """A broker could not be reached, or did not do what it was asked.

    Agent code never meets it, since publishing is retried in the background; workers, operators and
    transports do.

    Attributes:
        confirmed: Of a batch that was being published, how many at its head the broker has confirmed.
    """

    def __init__(self, message: str, confirmed: int = 0) -> None:
        super().__init__(message)
        self.confirmed = confirmed
