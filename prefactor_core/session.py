"""A session: what calls on a client need between its ``initialize()`` and its ``close()``.

The client, and what agents hold of it, lead to the ``Entrance``; what is behind that belongs to the
``Lifetime``, and nothing there leads back. So reference counts tell when nobody is left.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakMethod, finalize, ref

from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import InvalidInputError
from prefactor_core.identifiers import PfidFactory
from prefactor_core.lifetime import Lifetime
from prefactor_core.managers.agent_instance import AgentInstanceManager
from prefactor_core.managers.span import SpanManager
from prefactor_core.models import utc_now
from prefactor_core.monitoring.termination_monitor import TerminationMonitor
from prefactor_core.operations import Operation
from prefactor_core.outbox import Entrance
from prefactor_core.queue.base import Queue

if TYPE_CHECKING:
    from prefactor_core.sender import LocalSender


class Session:
    """One life of a client. When nobody holds it any more, nor its managers, its lifetime ends by itself.

    ``sdk_header`` must not lead to the client.

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
    ) -> None:
        if queue.closed:
            raise InvalidInputError("queue", "it is closed: give the client a new one")
        queue.introduce(sdk_header)
        sender = _local_sender(config, queue, sdk_header, monitor) if queue.local else None
        self.lifetime = Lifetime(queue, sender, monitor, config.close_timeout)
        entrance = Entrance(self.lifetime.outbox, self.lifetime.check)

        def finished(instance_id: str) -> None:
            tell_spans = spans_finished()
            if tell_spans is not None:
                tell_spans(instance_id)
            monitor.finished(instance_id)

        self.instances = AgentInstanceManager(
            entrance, ids, utc_now, on_register=monitor.watch, on_finish=finished
        )
        self.spans = SpanManager(
            entrance, ids, utc_now, self.instances.start_if_pending, self.instances.schema_names
        )
        # Weak, since spans lead to instances: a cycle would wait for the garbage collector.
        spans_finished = WeakMethod(self.spans.instance_finished)
        finalize(entrance, self.lifetime.drop, ref(entrance))


def _local_sender(
    config: PrefactorCoreConfig,
    queue: Queue[Operation],
    sdk_header: Callable[[], str],
    monitor: TerminationMonitor,
) -> "LocalSender":
    if config.http_config is None:
        raise InvalidInputError(
            "http_config",
            "is missing: operations are sent from this process, which needs api_url and api_token",
        )
    # Imported here since it brings httpx, which imports its own command line's libraries (click, rich) where
    # they are installed: importing prefactor_core costs no agent that, nor one that publishes to a broker.
    from prefactor_core.sender import LocalSender  # noqa: PLC0415

    return LocalSender(queue, config.http_config, config, sdk_header, monitor)
