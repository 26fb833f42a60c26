"""How a fault on the way of a request reaches the single operations in it."""

from collections.abc import Sequence
from typing import cast

from starlette.types import Scope

from prefactor_emulator.operations import OperationHook

_KEY = "prefactor_emulator.faults.hooks"


def operation_hooks(scope: Scope) -> Sequence[OperationHook]:
    """Collect what is to be called before each operation of a request."""
    return cast("Sequence[OperationHook]", scope.get(_KEY, ()))


def with_hook(scope: Scope, hook: OperationHook) -> Scope:
    """Make a request's scope with one hook more."""
    return {**scope, _KEY: [*operation_hooks(scope), hook]}
