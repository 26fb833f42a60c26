"""Everything that the author of a transport needs; docs/write-a-transport.md shows how it fits together.

A transport implements ``Broker`` and its ends (``PublishingEnd``, ``ConsumingEnd`` with ``Partition``,
``DeadLetterEnd``), reads its URL with ``split_options``, and returns ``BrokerQueue.from_config`` from the
hook ``prefactor_create_queue``. One that keeps operations in the agent's process subclasses ``Queue``
instead. ``prefactor_core.testing`` has the contract that it is tested by.
"""

from prefactor_core.broker.driver import (
    MAX_ATTEMPTS,
    Broker,
    ConsumingEnd,
    DeadLetterEnd,
    DeadLetterMessage,
    End,
    Fleet,
    Loss,
    Message,
    Partition,
    PartitionState,
    PublishingEnd,
)
from prefactor_core.broker.options import DEFAULT_PARTITIONS, MAX_PARTITIONS, BrokerOptions, split_options
from prefactor_core.broker.ownership import Lease, process_name
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import BrokerError, MissingDriverError, QueueClosedError, TransportError
from prefactor_core.execution.retry import RetryPolicy
from prefactor_core.hookspecs import hookimpl
from prefactor_core.operations import Operation
from prefactor_core.outage import Outage
from prefactor_core.queue.base import DeadLetter, Delivery, DirectQueue, Published, Queue

__all__ = [
    "DEFAULT_PARTITIONS",
    "MAX_ATTEMPTS",
    "MAX_PARTITIONS",
    "Broker",
    "BrokerError",
    "BrokerOptions",
    "BrokerQueue",
    "ConsumingEnd",
    "DeadLetter",
    "DeadLetterEnd",
    "DeadLetterMessage",
    "Delivery",
    "DirectQueue",
    "End",
    "Fleet",
    "Lease",
    "Loss",
    "Message",
    "MissingDriverError",
    "Operation",
    "Outage",
    "Partition",
    "PartitionState",
    "PrefactorCoreConfig",
    "Published",
    "PublishingEnd",
    "Queue",
    "QueueClosedError",
    "RetryPolicy",
    "TransportError",
    "hookimpl",
    "process_name",
    "split_options",
]
