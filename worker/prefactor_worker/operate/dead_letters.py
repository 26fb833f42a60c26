"""`prefactor-worker dead-letters`: list, show, replay, purge."""

import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

import typer
from rich.console import Console

from prefactor_core.broker.dead_letters import DeadLetters, Replay, Selection
from prefactor_core.texts import one_line
from prefactor_worker.broker import broker_queue
from prefactor_worker.operate.common import command, warn, write_json
from prefactor_worker.operate.dead_letter_groups import By, Groups, Kind, is_over, pattern_of
from prefactor_worker.operate.dead_letter_list import JsonList, TextList
from prefactor_worker.operate.dead_letter_options import (
    Agent,
    Everything,
    Ids,
    Instance,
    Reason,
    Type,
    Yes,
    selection,
)
from prefactor_worker.operate.dead_letter_view import (
    DEAD_LETTER,
    SCREEN,
    group_json,
    group_lines,
    replay_json,
    replay_lines,
    whole,
    whole_lines,
)
from prefactor_worker.operate.words import count
from prefactor_worker.options import AsJson, Transport

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
    ids: Ids = None,
    instance: Instance = None,
    agent: Agent = None,
    type_: Type = None,
    reason: Reason = None,
    by: Annotated[
        By | None, typer.Option("--by", help="Count them in groups, the largest first, with an example each.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="How many dead letters or groups to list at most; 0 for all. By default a screen.",
        ),
    ] = None,
    json_document: AsJson = False,
) -> int:
    """List dead letters with their reasons, the oldest of each partition first; never payloads.

    Options that select are combined: what is listed meets all of them.
    """
    wanted = selection(ids, instance, agent, type_, reason)
    if by is not None:
        return await _list_groups(transport, wanted, by, limit, json_document=json_document)
    listing = JsonList() if json_document else TextList()
    number, most = 0, listing.usual if limit is None else limit
    async with aclosing(_kept(transport).list(wanted)) as those:
        async for dead_letter in those:
            if most and number == most:
                listing.end(more=True)
                return 0
            number += 1
            listing.add(dead_letter)
    listing.end(more=False)
    return 0


async def _list_groups(
    transport: str, wanted: Selection, by: By, limit: int | None, *, json_document: bool
) -> int:
    groups = Groups(by)
    async with aclosing(_kept(transport).list(wanted)) as those:
        async for dead_letter in those:
            groups.add(dead_letter)
    found = groups.largest_first()
    if json_document:
        shown = found[: limit or None]
        write_json({"groups": [group_json(group, by) for group in shown], "more": len(shown) < len(found)})
        return 0
    console = Console(soft_wrap=True)
    for line in group_lines(found, by, SCREEN if limit is None else limit or len(found)):
        console.print(line)
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
    agent: Agent = None,
    type_: Type = None,
    reason: Reason = None,
    everything: Everything = False,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="With new idempotency keys: what had its effect before has it again."),
    ] = False,
    skip_over: Annotated[
        bool,
        typer.Option(
            "--skip-over", help="Leave out those that the API would refuse: their instance is over."
        ),
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
    asked first. So you are where the API will refuse some again, since their instance is over. What it
    refuses is kept with the new reason. The exit status is 1 if anything was kept, or was not delivered while
    this command waited.
    """
    wanted = selection(ids, instance, agent, type_, reason, everything=everything)
    kept = _kept(transport)
    found, missing = await _find(kept, wanted)
    over = [id_ for id_, kind in found.items() if is_over(kind.reason)]
    if over:
        what = "are left out" if skip_over else "will be refused again"
        warn(
            f"{len(over):,} of {count(len(found), DEAD_LETTER)} {what}, since their instance is over; "
            f"for example {one_line(over[0])}"
        )
    if skip_over:
        found = {id_: kind for id_, kind in found.items() if not is_over(kind.reason)}
    done = Replay()
    if found:
        question = _question(len(found), new_key=new_key, over=bool(over) and not skip_over)
        if question is not None and not yes and not _agreed(question):
            return 1
        done = await kept.replay(Selection(ids=found.keys()), new_key=new_key, wait=wait)
    known = wait > 0 and done.answers
    if json_document:
        document = replay_json(done, found, known=known)
        write_json(document | {"skipped": len(over) if skip_over else 0, "not_found": missing})
    elif not found:
        typer.echo(_nothing("replayed"))
    else:
        for line in replay_lines(done, found, wait, known=known):
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
    agent: Agent = None,
    type_: Type = None,
    reason: Reason = None,
    everything: Everything = False,
    yes: Yes = False,
    json_document: AsJson = False,
) -> int:
    """Remove dead letters for good. You are asked first."""
    wanted = selection(ids, instance, agent, type_, reason, everything=everything)
    kept = _kept(transport)
    found, missing = await _find(kept, wanted)
    purged = 0
    if found:
        question = f"Purge {count(len(found), DEAD_LETTER)} for good? Nothing brings them back."
        if not yes and not _agreed(question):
            return 1
        purged = await kept.purge(Selection(ids=found.keys()))
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


async def _find(kept: DeadLetters, wanted: Selection) -> tuple[dict[str, Kind], list[str]]:
    """Return the ids that there are now, with their kinds, and those that were named and are not selected.

    The command works on those that were found, whatever comes later.
    """
    named = wanted.ids or ()
    found: dict[str, Kind] = {}
    async with aclosing(kept.list(wanted)) as listed:
        async for dead_letter in listed:
            found[dead_letter.id] = Kind(dead_letter.type, pattern_of(dead_letter.reason))
            if len(found) == len(named):
                break
    return found, [id_ for id_ in named if id_ not in found]


def _question(number: int, *, new_key: bool, over: bool) -> str | None:
    """Return what to ask before a replay of so many, if anything is to be asked."""
    if new_key:
        keys = "with new idempotency keys? What has had its effect before has it once more."
        return f"Replay {count(number, DEAD_LETTER)} {keys}"
    return (
        f"Replay {count(number, DEAD_LETTER)} all the same? (--skip-over leaves those out.)" if over else None
    )


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
