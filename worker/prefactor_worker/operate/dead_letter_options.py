"""Options that say which dead letters a command is for; all that are given have to hold."""

from typing import Annotated, Final, TypeAlias

import typer

from prefactor_core.broker.dead_letters import UNKNOWN, UNREAD, Selection
from prefactor_core.operations import OperationType

Ids: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[OPERATION_ID]...", help="Operations, as `list` names them.")
]
Instance: TypeAlias = Annotated[
    str | None, typer.Option("--instance", metavar="ID", help="Those of this agent instance.")
]
Agent: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="NAME", help=f"Those of this agent, as `list --by agent` names it; {UNKNOWN}, too."
    ),
]
Type: TypeAlias = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help=f"Those of this type, as `list` names it; {UNREAD}, too."),
]
Reason: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="Those with this in their reason, as `list` has it; * is anything."
    ),
]
Everything: TypeAlias = Annotated[bool, typer.Option("--all", help="All there are.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_TYPES: Final = (*(kind.value for kind in OperationType), UNREAD)


def selection(
    ids: list[str] | None,
    instance: str | None,
    agent: str | None,
    type_: str | None,
    reason: str | None,
    *,
    everything: bool | None = None,
) -> Selection:
    """Return what the arguments say; where ``--all`` is an option, they have to say something.

    Raises:
        BadParameter: They say nothing, or both some and all; one is empty, or no such type.
    """
    if any(text is not None and not text.strip() for text in (instance, agent, type_, reason)):
        raise typer.BadParameter("an option that selects is empty")  # as of a variable that a shell lacks
    if type_ is not None and type_ not in _TYPES:
        raise typer.BadParameter(f"--type is one of {', '.join(_TYPES)}")
    wanted = Selection(dict.fromkeys(ids) if ids else None, instance, type_, agent, reason)
    if everything is not None and (wanted == Selection()) is not everything:
        which = "name operations, or select some (--instance, --agent, --type, --reason), or --all"
        raise typer.BadParameter(
            f"{which}: one of them" if everything else f"which ones? {which.capitalize()}"
        )
    return wanted
