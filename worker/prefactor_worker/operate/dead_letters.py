"""`prefactor-worker dead-letters`: list, show, replay, purge."""

import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console

from prefactor_core.broker.dead_letters import DeadLetters, Replay, Selection
from prefactor_core.texts import one_line
from prefactor_worker.broker import broker_queue
from prefactor_worker.operate.common import command, warn, write_json
from prefactor_worker.operate.dead_letter_view import (
    DEAD_LETTER,
    replay_json,
    replay_lines,
    summary,
    summary_lines,
    whole,
    whole_lines,
)
from prefactor_worker.operate.words import count
from prefactor_worker.options import AsJson, Transport

Ids: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[OPERATION_ID]...", help="Operations, as `list` names them.")
]
Instance: TypeAlias = Annotated[
    str | None, typer.Option("--instance", metavar="ID", help="Those of this agent instance.")
]
Everything: TypeAlias = Annotated[bool, typer.Option("--all", help="All there are.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


dead_letters = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Look after the operations that were dead-lettered: they stay until they are replayed or purged.",
)


@dead_letters.command(name="list")
@command
async def list_(
    *,
    transport: Transport,
    instance: Instance = None,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many to list at most; 0 for all.")
    ] = 100,
    json_document: AsJson = False,
) -> int:
    """List dead letters with their reasons, the oldest of each partition first; never payloads."""
    console = Console(soft_wrap=True)
    listed: list[dict[str, Any]] = []
    number, more = 0, False
    async with aclosing(_kept(transport).list(Selection(instance=instance))) as those:
        async for dead_letter in those:
            if limit and number == limit:
                more = True
                break
            number += 1
            if json_document:
                listed.append(summary(dead_letter))
            else:
                for line in summary_lines(dead_letter):
                    console.print(line)
    if json_document:
        write_json({"dead_letters": listed, "more": more})
    elif more:
        typer.echo(f"\nThe first {count(number, DEAD_LETTER)} of more; --limit 0 lists all.")
    else:
        typer.echo(f"\n{count(number, DEAD_LETTER)}." if number else "No dead letters.")
    return 0


@dead_letters.command()
@command
async def show(
    *,
    transport: Transport,
    operation_id: Annotated[str, typer.Argument(metavar="OPERATION_ID", help="As `list` names it.")],
    json_document: AsJson = False,
) -> int:
    """Show all there is of one dead letter, its payload and the API's reply too."""
    async with aclosing(_kept(transport).list(Selection(ids={operation_id}))) as those:
        dead_letter = await anext(those, None)
    if dead_letter is None:
        return _not_found([operation_id])
    if json_document:
        write_json(whole(dead_letter))
    else:
        console = Console(soft_wrap=True)
        for line in whole_lines(dead_letter):
            console.print(line)
    return 0


@dead_letters.command()
@command
async def replay(
    *,
    transport: Transport,
    ids: Ids = None,
    instance: Instance = None,
    everything: Everything = False,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="With new idempotency keys: what had its effect before has it again."),
    ] = False,
    yes: Yes = False,
    wait: Annotated[
        float,
        typer.Option(
            min=0, max=86_400, metavar="SECONDS", help="Wait so long for news of the outcome; 0: do not."
        ),
    ] = 30.0,
    json_document: AsJson = False,
) -> int:
    """Send operations once more, each instance's in their sequence, and say what became of them.

    They keep their idempotency keys, so that nothing takes effect twice; with --new-key it may, and you are
    asked first. What the API refuses again is kept with the new reason. The exit status is 1 if anything was
    kept, or was not delivered while this command waited.
    """
    wanted = _wanted(ids, instance, everything=everything)
    kept = _kept(transport)
    found, missing = await _find(kept, wanted)
    done = Replay()
    if found:
        question = (
            f"Replay {count(len(found), DEAD_LETTER)} with new idempotency keys? What has had its effect "
            "before has it once more."
        )
        if new_key and not yes and not _agreed(question):
            return 1
        done = await kept.replay(Selection(ids=found), new_key=new_key, wait=wait)
    known = wait > 0 and done.answers
    if json_document:
        write_json(replay_json(done, known=known) | {"not_found": missing})
    elif not found:
        typer.echo(_nothing("replayed"))
    else:
        for line in replay_lines(done, wait, known=known):
            typer.echo(line)
    if done.unreadable:
        warn(f"{count(done.unreadable, DEAD_LETTER)} cannot be read by this release, and stay where they are")
    failed = done.unreadable > 0 or done.kept_count > 0 or (known and done.pending > 0)
    return _not_found(missing) or int(failed)


@dead_letters.command()
@command
async def purge(
    *,
    transport: Transport,
    ids: Ids = None,
    instance: Instance = None,
    everything: Everything = False,
    yes: Yes = False,
    json_document: AsJson = False,
) -> int:
    """Remove dead letters for good. You are asked first."""
    wanted = _wanted(ids, instance, everything=everything)
    kept = _kept(transport)
    found, missing = await _find(kept, wanted)
    purged = 0
    if found:
        question = f"Purge {count(len(found), DEAD_LETTER)} for good? Nothing brings them back."
        if not yes and not _agreed(question):
            return 1
        purged = await kept.purge(Selection(ids=found))
    if json_document:
        write_json({"purged": purged, "not_found": missing})
    elif not found:
        typer.echo(_nothing("purged"))
    else:
        gone = f"; {len(found) - purged} were gone by then" if purged < len(found) else ""
        typer.echo(f"{count(purged, DEAD_LETTER)} purged{gone}.")
    return _not_found(missing)


def _kept(transport: str) -> DeadLetters:
    return broker_queue(transport).dead_letters


def _wanted(ids: list[str] | None, instance: str | None, *, everything: bool) -> Selection:
    """Return what the arguments say.

    Raises:
        BadParameter: They say nothing, or more than one thing.
    """
    given = [bool(ids), instance is not None, everything]
    if not any(given):
        raise typer.BadParameter("which ones? Name operations, or --instance ID, or --all")
    if sum(given) > 1:
        raise typer.BadParameter("name operations, or --instance ID, or --all: one of them")
    return Selection(ids=dict.fromkeys(ids) if ids else None, instance=instance)


async def _find(kept: DeadLetters, wanted: Selection) -> tuple[frozenset[str], list[str]]:
    """Return the ids that there are now, and those that were named and are not among the dead letters.

    The command works on those that were found, whatever comes later.
    """
    named = wanted.ids or ()
    found: set[str] = set()
    async with aclosing(kept.list(wanted)) as listed:
        async for dead_letter in listed:
            found.add(dead_letter.id)
            if len(found) == len(named):
                break
    return frozenset(found), [id_ for id_ in named if id_ not in found]


def _nothing(done: str) -> str:
    return f"Nothing {done}: there are no such dead letters."


def _agreed(question: str) -> bool:
    """Ask at the terminal; where there is none, refuse.

    Raises:
        BadParameter: There is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Without a terminal to ask at, this needs --yes")
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    warn("nothing was changed")
    return False


def _not_found(ids: Sequence[str]) -> int:
    """Say which ids are not among the dead letters; return the exit status that this makes."""
    if ids:
        warn(f"not among the dead letters: {', '.join(map(one_line, ids))}")
    return int(bool(ids))
