"""`prefactor-worker dead-letters`: list, show, replay, purge."""

import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console

from prefactor_core.broker.dead_letters import DeadLetters, Replay, Selection, StoredDeadLetter
from prefactor_worker.operate.common import AsJson, Transport, carry_out, open_broker, write_json, write_line
from prefactor_worker.operate.dead_letter_view import (
    DEAD_LETTER,
    replay_json,
    replay_lines,
    summary,
    summary_lines,
    whole,
    whole_lines,
)
from prefactor_worker.operate.words import count, safe

Ids: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[OPERATION_ID]...", help="Operations, as `list` names them.")
]
Instance: TypeAlias = Annotated[
    str | None, typer.Option("--instance", metavar="ID", help="Those of this agent instance.")
]
Everything: TypeAlias = Annotated[bool, typer.Option("--all", help="All there are.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def dead_letters_commands() -> typer.Typer:
    """Return the group of commands."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback()(_introduce)
    app.command(name="list")(_list)
    app.command(name="show")(_show)
    app.command(name="replay")(_replay)
    app.command(name="purge")(_purge)
    return app


def _introduce() -> None:
    """Look after the operations that were dead-lettered: they stay until they are replayed or purged."""


def _list(
    *,
    transport: Transport,
    instance: Instance = None,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many to list at most; 0 for all.")
    ] = 100,
    json_document: AsJson = False,
) -> int:
    """List dead letters with their reasons, the oldest of each partition first; never payloads."""
    return carry_out(_do_list(transport, Selection(instance=instance), limit, json=json_document))


def _show(
    *,
    transport: Transport,
    operation_id: Annotated[str, typer.Argument(metavar="OPERATION_ID", help="As `list` names it.")],
    json_document: AsJson = False,
) -> int:
    """Show all there is of one dead letter, its payload and the API's reply too."""
    return carry_out(_do_show(transport, operation_id, json=json_document))


def _replay(
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
    return carry_out(_do_replay(transport, wanted, new_key=new_key, yes=yes, wait=wait, json=json_document))


def _purge(
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
    return carry_out(_do_purge(transport, wanted, yes=yes, json=json_document))


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


async def _find(dead_letters: DeadLetters, wanted: Selection) -> tuple[frozenset[str], list[str]]:
    """Return the ids that there are now, and those that were named and are not among the dead letters.

    The command works on those that were found, whatever comes later.
    """
    named = wanted.ids or ()
    found: set[str] = set()
    async with aclosing(dead_letters.list(wanted)) as listed:
        async for dead_letter in listed:
            found.add(dead_letter.id)
            if len(found) == len(named):
                break
    return frozenset(found), [id_ for id_ in named if id_ not in found]


# -- what the commands do


async def _do_list(transport: str, selection: Selection, limit: int, *, json: bool) -> int:
    dead_letters = open_broker(transport).dead_letters
    console = Console(soft_wrap=True)
    listed: list[dict[str, Any]] = []
    number, more = 0, False
    async with aclosing(dead_letters.list(selection)) as those:
        async for dead_letter in those:
            if limit and number == limit:
                more = True
                break
            number += 1
            if json:
                listed.append(summary(dead_letter))
            else:
                for line in summary_lines(dead_letter):
                    console.print(line)
    if json:
        write_json({"dead_letters": listed, "more": more})
    elif more:
        write_line(f"\nThe first {count(number, DEAD_LETTER)} of more; --limit 0 lists all.")
    else:
        write_line(f"\n{count(number, DEAD_LETTER)}." if number else "No dead letters.")
    return 0


async def _do_show(transport: str, operation_id: str, *, json: bool) -> int:
    dead_letter = await _one(open_broker(transport).dead_letters, operation_id)
    if dead_letter is None:
        return _not_found([operation_id])
    if json:
        write_json(whole(dead_letter))
    else:
        console = Console(soft_wrap=True)
        for line in whole_lines(dead_letter):
            console.print(line)
    return 0


async def _one(dead_letters: DeadLetters, operation_id: str) -> StoredDeadLetter | None:
    async with aclosing(dead_letters.list(Selection(ids={operation_id}))) as those:
        async for dead_letter in those:
            return dead_letter
    return None


async def _do_replay(
    transport: str, wanted: Selection, *, new_key: bool, yes: bool, wait: float, json: bool
) -> int:
    dead_letters = open_broker(transport).dead_letters
    found, missing = await _find(dead_letters, wanted)
    replay = Replay()
    if found:
        question = (
            f"Replay {count(len(found), DEAD_LETTER)} with new idempotency keys? What has had its effect "
            "before has it once more."
        )
        if new_key and not yes and not _agreed(question):
            return 1
        replay = await dead_letters.replay(Selection(ids=found), new_key=new_key, wait=wait)
    known = wait > 0 and replay.answers
    if json:
        write_json(replay_json(replay, known=known) | {"not_found": missing})
    elif not found:
        write_line(_nothing("replayed"))
    else:
        for line in replay_lines(replay, wait, known=known):
            write_line(line)
    if replay.unreadable:
        unreadable = count(replay.unreadable, DEAD_LETTER)
        _warn(f"{unreadable} cannot be read by this release, and stay where they are")
    failed = replay.unreadable > 0 or replay.kept_count > 0 or (known and replay.pending > 0)
    return _not_found(missing) or int(failed)


async def _do_purge(transport: str, wanted: Selection, *, yes: bool, json: bool) -> int:
    dead_letters = open_broker(transport).dead_letters
    found, missing = await _find(dead_letters, wanted)
    purged = 0
    if found:
        question = f"Purge {count(len(found), DEAD_LETTER)} for good? Nothing brings them back."
        if not yes and not _agreed(question):
            return 1
        purged = await dead_letters.purge(Selection(ids=found))
    if json:
        write_json({"purged": purged, "not_found": missing})
    else:
        write_line(_told("purged", purged, len(found)))
    return _not_found(missing)


def _told(done: str, number: int, of: int) -> str:
    if not of:
        return _nothing(done)
    gone = f"; {of - number} were gone by then" if number < of else ""
    return f"{count(number, DEAD_LETTER)} {done}{gone}."


def _nothing(done: str) -> str:
    return f"Nothing {done}: there are no such dead letters."


def _agreed(question: str) -> bool:
    """Ask at the terminal; where there is none, refuse.

    Raises:
        BadParameter: There is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Without a terminal to ask at, this needs --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    _warn("nothing was changed")
    return False


def _not_found(ids: Sequence[str]) -> int:
    """Say which ids are not among the dead letters; return the exit status that this makes."""
    if ids:
        _warn(f"not among the dead letters: {', '.join(map(safe, ids))}")
    return int(bool(ids))


def _warn(text: str) -> None:
    sys.stderr.write(f"prefactor-worker: {text}\n")
