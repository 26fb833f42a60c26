"""The broker that a command was told of: its queue, and whether its URL fits what is there."""

from prefactor_core import PrefactorCoreConfig
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.exceptions import TransportError
from prefactor_core.plugins import create_queue


def broker_queue(url: str) -> BrokerQueue:
    """Return the queue at a transport URL that workers can empty.

    Raises:
        TransportError: There is none, or operations never leave the agent's process with it.
    """
    queue = create_queue(url, PrefactorCoreConfig(transport_url=url))
    if not isinstance(queue, BrokerQueue):
        raise TransportError("the transport is no broker: its operations never leave the agent's process")
    return queue


def disagreement(asked: int | None, recorded: int) -> str | None:
    """Return what is wrong with the number of partitions that a URL asks for, if anything is."""
    if asked is None or asked == recorded:
        return None
    return (
        f"the URL asks for {asked} partitions, and the {recorded} that are recorded count; leave the option "
        "out, or use another prefix"
    )
