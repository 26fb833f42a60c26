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
    """What is known of terminated instances; each is logged once, and told to ``on_terminated``.

    It becomes known by a control signal or a read. Where the token may not read, the second operation of an
    instance that is refused for its state tells.
    """

    def __init__(self, on_terminated: OnTerminated | None = None) -> None:
        self._on_terminated = on_terminated
        self._known: dict[str, None] = {}
        self._refused: dict[str, tuple[str, float]] = {}

    def __contains__(self, instance_id: str | None) -> bool:
        """Whether the instance is known to be terminated."""
        return instance_id in self._known

    def heard(self, instance_id: str, reason: str | None) -> None:
        """Note that an instance is terminated."""
        if instance_id in self._known:
            return
        remember(self._known, instance_id, None, _KEPT)
        self._refused.pop(instance_id, None)
        logger.warning(
            "prefactor: instance %s is terminated by the service: what the API refuses of it is superseded",
            instance_id,
        )
        if self._on_terminated is not None:
            self._on_terminated(instance_id, reason)

    def refused(self, instance_id: str, key: str, now: float) -> float:
        """Note that the operation with that key was refused for its instance's state, which cannot be read.

        If it is the second one of its instance, that counts as terminated.

        Returns:
            Seconds since the first one was refused.
        """
        first, since = self._refused.get(instance_id, (key, now))
        if first != key:
            self.heard(instance_id, None)
        elif instance_id not in self._refused:
            remember(self._refused, instance_id, (key, now), _KEPT)
        return now - since
