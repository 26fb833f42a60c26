"""Queues, and the executor that empties them: each delivery is settled, dead-lettered or released."""

from prefactor_core.queue.base import DeadLetter, Delivery, Queue, QueueClosedError
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue

__all__ = ["DeadLetter", "Delivery", "InMemoryQueue", "Queue", "QueueClosedError", "TaskExecutor"]
