"""Finds plugins: the transport for a URL (the one door for all of them), and observers."""

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

import pluggy

from prefactor_core import hookspecs
from prefactor_core.config import PrefactorCoreConfig
from prefactor_core.exceptions import TransportError, UnknownTransportError
from prefactor_core.queue.base import DeadLetter, Observe, Queue


def installed_transports() -> list[str]:
    """Return the URL schemes that the installed transports serve."""
    return sorted({entry.name for entry in entry_points(group=hookspecs.ENTRY_POINT_GROUP)})


def create_queue(url: str, config: PrefactorCoreConfig) -> Queue[Any]:
    """Build the queue that ``url`` names; nothing is connected yet.

    Only the plugin of the URL's scheme is imported.

    Raises:
        UnknownTransportError: No installed transport serves the scheme.
        TransportError: The plugin cannot make anything of the URL, or is not a transport.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise TransportError(f"transport_url: is no URL: {error}") from None
    manager = _manager()
    if not scheme or not manager.load_setuptools_entrypoints(hookspecs.ENTRY_POINT_GROUP, name=scheme):
        raise UnknownTransportError(
            f"transport_url: no transport for {scheme or 'a URL without a scheme'}:// is installed; "
            f"installed are {', '.join(installed_transports()) or 'none'}"
        )
    manager.check_pending()  # a misspelt hook is an error, not a plugin that does nothing
    queue = manager.hook.prefactor_create_queue(url=url, config=config)
    if not isinstance(queue, Queue):
        raise TransportError(
            f"transport_url: the transport for {scheme}:// made no Queue of it but {type(queue).__name__}"
        )
    return queue


def observers(*own: object) -> Observe | None:
    """Return what tells every observer, the installed ones and ``own``, or ``None`` if there is none."""
    manager = _manager()
    manager.load_setuptools_entrypoints(hookspecs.OBSERVER_GROUP)
    for observer in own:
        manager.register(observer)
    manager.check_pending()
    if not manager.hook.prefactor_disposed.get_hookimpls():
        return None

    def tell(settled: Sequence[Any], superseded: Sequence[Any], dead: Sequence[DeadLetter[Any]]) -> None:
        manager.hook.prefactor_disposed(settled=settled, superseded=superseded, dead=dead)

    return tell


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    return manager
