"""What can lose or hold up operations, in plain words."""

from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, PublishError

from prefactor_core.exceptions import BrokerError
from prefactor_rabbitmq.confirming import ConfirmingChannel, Confirms, Outgoing
from prefactor_rabbitmq.link import Link
from prefactor_rabbitmq.permissions import denied
from prefactor_rabbitmq.topology import LEAST_VERSION, Topology

_PROBE_SECONDS = 3.0
_NOWHERE = "no queue has this name"
_ALARM = "RabbitMQ takes no messages now: its memory or disk alarm is on"
_SILENT = "RabbitMQ does not answer to messages"


async def problems(link: Link, topology: Topology, timeout: float) -> list[str]:
    """Return everything that is wrong. Makes nothing, and leaves nothing.

    Permissions are known by what is refused under a name that nothing has.

    Raises:
        BrokerError: The connection was lost meanwhile.
    """
    version = ".".join(map(str, link.version))
    if link.version < LEAST_VERSION:
        return [f"RabbitMQ {version} is too old: 3.10 or newer is needed"]
    found = await denied(link, topology.names)
    if not found:
        found += await _look(link, topology)
    if topology.limited:
        found.append(
            f"queues were made by an older RabbitMQ than {version}, which drops what it delivers too often: "
            "set a policy with delivery-limit -1 for them, or drain and delete them"
        )
    # Dead letters go through the exchange without a name.
    for exchange in (topology.names.exchange, ""):
        problem = await _try_to_publish(link, exchange, min(timeout, _PROBE_SECONDS))
        if problem is not None:
            found.append(problem)
        if problem in {_ALARM, _SILENT}:
            break
    return found


async def _look(link: Link, topology: Topology) -> list[str]:
    try:
        missing = await topology.look(link)
    except BrokerError as error:
        if not link.sound:
            raise
        return [str(error)]
    return [
        f"{name} is missing, with what was in it; the next agent or worker makes it again" for name in missing
    ]


async def _try_to_publish(link: Link, exchange: str, seconds: float) -> str | None:
    """Publish what cannot be routed: a broker that takes messages returns it."""
    async with link.bounded("trying to publish"):
        channel = await link.channel(confirms=True)
        if not isinstance(channel, Channel):
            raise TypeError("the driver made another kind of channel")
        confirming, confirms = ConfirmingChannel(channel), Confirms()
        await confirming.publish([Outgoing(exchange, _NOWHERE, b"{}")], confirms)
    answered = await confirms.wait(seconds)
    confirming.done_with(confirms)
    if not answered:
        return _ALARM if await link.is_blocked() else _SILENT
    error = confirms.error
    if isinstance(error, ChannelAccessRefused):
        where = f"the exchange {exchange}" if exchange else "the default exchange, which dead letters need"
        return f"the user may not publish through {where}: grant write ({error})"
    if not isinstance(error, PublishError) and not link.sound:
        raise BrokerError("the connection was lost while trying to publish")
    return None
