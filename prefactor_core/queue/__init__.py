"""Queues and the executor that empties them.

One operation's way: ``Queue.put`` -> ``Queue.receive`` -> ``Lanes.add`` -> ``Lanes.take`` ->
a ``BatchHandler`` -> an ``Outcome`` -> ``Lanes.resolve`` -> ``Queue.settle`` or ``Queue.dead_letter``.
"""

from prefactor_core.queue.base import DeadLetter, Delivery, Queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue

__all__ = ["DeadLetter", "Delivery", "InMemoryQueue", "Queue", "TaskExecutor"]
