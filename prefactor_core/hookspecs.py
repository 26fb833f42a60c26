"""The hooks of plugins: transports and observers.

A transport is a distribution with an entry point in the group ``prefactor.transports`` whose name is the URL
scheme that it serves. An observer has one in the group ``prefactor.observers``, under any name. The entry
point names a module (or object) with implementations of these hooks.
"""

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefactor_core.config import PrefactorCoreConfig
    from prefactor_core.queue.base import DeadLetter, Queue

PROJECT_NAME = "prefactor"
ENTRY_POINT_GROUP = "prefactor.transports"
OBSERVER_GROUP = "prefactor.observers"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec(firstresult=True)
def prefactor_create_queue(url: str, config: "PrefactorCoreConfig") -> "Queue[Any] | None":
    """Build the queue for ``url``, or return ``None`` if the URL is not yours. Connect nothing yet."""


@hookspec
def prefactor_disposed(
    settled: "Sequence[Any]", superseded: "Sequence[Any]", dead: "Sequence[DeadLetter[Any]]"
) -> None:
    """See what was settled, superseded and dead-lettered just now; every observer is called.

    An implementation may leave out the arguments that it does not look at.

    Be quick: the call is synchronous, on the event loop. If it raises, the exception is logged once an
    outage, observers that come after it miss this call, and delivery continues.
    """
