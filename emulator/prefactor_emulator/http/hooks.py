"""How a fault on the way of a request reaches the single operations in it."""

from collections.abc import Sequence
from typing import Final, cast

from starlette.types import Scope

from prefactor_emulator.operations import OperationHook

_KEY: Final = "prefactor_emulator.hooks"


def operation_hooks(scope: Scope) -> Sequence[OperationHook]:
    """Return what is to be called before each operation of a request."""
    return cast("Sequence[OperationHook]", scope.get(_KEY, ()))


def with_hooks(scope: Scope, hooks: Sequence[OperationHook]) -> Scope:
    """Return a request's scope with hooks."""
    return {**scope, _KEY: hooks}
