"""A session: what calls on a client need between its ``initialize()`` and its ``close()``.

The client, and what agents hold of it, lead to the ``Entrance``; what is behind that belongs to the
``Lifetime``, and nothing there leads back. So reference counts tell when nobody is left.
"""

from collections.abc import Callable
from weakref import finalize, ref

from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import InvalidInputError
from prefactor_core.identifiers import PfidFactory
from prefactor_core.lifetime import Lifetime
from prefactor_core.models import utc_now
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.queue.base import Queue
from prefactor_core.recording.entrance import Entrance
from prefactor_core.recording.instances import InstanceRecorder
from prefactor_core.recording.records import InstanceRecord
from prefactor_core.recording.spans import SpanRecorder
from prefactor_core.senders.base import Sender
from prefactor_core.senders.remote import RemoteSender


class Session:
    """One life of a client. When nobody holds it any more, nor its recorders, its lifetime ends by itself.

    ``sdk_header`` must not lead to the client; ``ends_by_itself`` is as for ``Lifetime``.

    Raises:
        InvalidInputError: The queue is closed, or it is emptied here and nothing says how to reach the API.
    """

    def __init__(
        self,
        config: PrefactorCoreConfig,
        queue: Queue[Operation],
        ids: PfidFactory,
        sdk_header: Callable[[], str],
        monitor: TerminationMonitor,
        *,
        ends_by_itself: bool = False,
    ) -> None:
        if queue.closed:
            raise InvalidInputError("queue", "it is closed: give the client a new one")
        sender = _local_sender(config, queue, sdk_header, monitor) if queue.local else RemoteSender(queue)
        queue.introduce(sdk_header)
        self.lifetime = Lifetime(queue, sender, monitor, config.close_timeout, ends_by_itself=ends_by_itself)
        entrance = Entrance(self.lifetime.gate, self.lifetime.handover)
        self.check = entrance.check
        """Raises if no call is taken."""
        spans = SpanRecorder(entrance, ids, utc_now, self.lifetime.loop.call_soon_threadsafe)

        def finished(record: InstanceRecord) -> None:
            spans.instance_finished(record)
            monitor.finished(record.id)

        self.spans = spans
        self.instances = InstanceRecorder(entrance, ids, utc_now, monitor.watch, finished)
        finalize(entrance, self.lifetime.drop, ref(entrance))


def _local_sender(
    config: PrefactorCoreConfig,
    queue: Queue[Operation],
    sdk_header: Callable[[], str],
    monitor: TerminationMonitor,
) -> Sender:
    if config.http_config is None:
        raise InvalidInputError(
            "http_config",
            "is missing: operations are sent from this process, which needs api_url and api_token",
        )
    # Imported here since it brings httpx, which imports its own command line's libraries (click, rich) where
    # they are installed: importing prefactor_core costs no agent that, nor one that publishes to a broker.
    from prefactor_core.senders.local import LocalSender  # noqa: PLC0415

    return LocalSender(queue, config.http_config, config, sdk_header, monitor)
