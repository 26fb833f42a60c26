"""Terminations: which instances the service has ended, as far as this process has heard."""

import logging
from collections.abc import Callable
from typing import Final, TypeAlias

from prefactor_core.bounded import remember

logger = logging.getLogger("prefactor_core.api")

OnTerminated: TypeAlias = Callable[[str, str | None], None]
"""Told the instance that the service asks to stop, and its reason, if it gave one."""

_KEPT: Final = 10_000
"""Terminated instances remembered, and as many that are in doubt. Past that the oldest is forgotten, and read
again once something of it is refused."""


class Terminations:
    """What is known of terminated instances; each is logged once.

    It becomes known by a control signal or a read: then ``on_terminated`` is told. Where the token may not
    read, an instance counts as terminated once two of its operations were refused for its state, with none
    taken in between. That may be another end, so no agent is told.
    """

    def __init__(self, on_terminated: OnTerminated | None = None) -> None:
        self._on_terminated = on_terminated
        self._told: dict[str, None] = {}
        self._inferred: dict[str, None] = {}
        self._refused: dict[str, tuple[str, float]] = {}

    def __contains__(self, instance_id: str | None) -> bool:
        """Whether the instance is known to be terminated."""
        return instance_id in self._told or instance_id in self._inferred

    def certain(self, instance_id: str | None) -> bool:
        """Whether the instance is terminated by what the service has said."""
        return instance_id in self._told

    def heard(self, instance_id: str, reason: str | None) -> None:
        """Note that an instance is terminated."""
        if instance_id in self._told:
            return
        remember(self._told, instance_id, None, _KEPT)
        self._refused.pop(instance_id, None)
        if instance_id not in self._inferred:
            message = "prefactor: instance %s is terminated by the service: what it refuses is superseded"
            logger.warning(message, instance_id)
        if self._on_terminated is not None:
            self._on_terminated(instance_id, reason)

    def taken(self, instance_id: str) -> None:
        """Note that an operation of the instance was taken, as only one that is not over takes it."""
        if self._refused:
            self._refused.pop(instance_id, None)

    def refused(self, instance_id: str, key: str, now: float) -> float:
        """Note that the operation with that key was refused for its instance's state, which cannot be read.

        If it is the second one of its instance, that counts as terminated.

        Returns:
            Seconds since the first one was refused.
        """
        first, since = self._refused.get(instance_id, (key, now))
        if first != key:
            del self._refused[instance_id]
            remember(self._inferred, instance_id, None, _KEPT)
            message = "prefactor: instance %s takes nothing any more: what it refuses is superseded"
            logger.warning(message, instance_id)
        elif instance_id not in self._refused:
            remember(self._refused, instance_id, (key, now), _KEPT)
        return now - since
