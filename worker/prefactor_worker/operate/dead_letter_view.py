"""Dead letters, and what came of replaying them, as people and as programs read it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic_core import from_json
from rich.text import Text

from prefactor_core.broker.dead_letters import UNKNOWN, Replay, StoredDeadLetter, envelope_fields
from prefactor_core.texts import one_line
from prefactor_worker.operate.dead_letter_groups import By, Group, Kind, outcomes, pattern_of
from prefactor_worker.operate.words import count, moment, safe_json

_UNREADABLE: Final = "cannot be read by this release"
_INDENT: Final = "    "
DEAD_LETTER: Final = "dead letter"
_LONGEST_REASON: Final = 500
"""Characters of a reason in a list; ``show`` has all of it."""
_LONGEST_KIND: Final = 86
"""Characters of type and reason in a replay's outcome, beside the counts."""
SCREEN: Final = 10
"""Groups that fit on a screen."""
_MOST_REASONS: Final = 5
"""Reasons that are told beside a replay's groups."""


def summary(dead_letter: StoredDeadLetter) -> dict[str, Any]:
    """Return what may be shown unasked: no payload, and no reply, which may quote one."""
    envelope = dead_letter.read()
    operation = None if envelope is None else envelope.operation
    return {
        "id": dead_letter.id,
        "readable": envelope is not None,
        "type": None if operation is None else operation.type.value,
        "agent": None if dead_letter.agent == UNKNOWN else dead_letter.agent,
        "instance": None if operation is None else operation.instance_id,
        "partition": dead_letter.partition,
        "at": dead_letter.at.isoformat() if dead_letter.known else None,
        "attempts": dead_letter.attempts if dead_letter.known else None,
        "reason": dead_letter.reason,
    }


def whole(dead_letter: StoredDeadLetter) -> dict[str, Any]:
    """Return all there is, the payload too."""
    found = summary(dead_letter) | {"reply": dead_letter.reply}
    envelope = dead_letter.read()
    if envelope is None:
        return found | envelope_fields(dead_letter.envelope)
    operation = envelope.operation
    return found | {
        "sequence": envelope.sequence,
        "key": operation.idempotency_key,
        "created_at": operation.timestamp.isoformat(),
        "sdk": envelope.sdk_header,
        "replayed": envelope.replayed,
        "body": from_json(dead_letter.envelope)["body"],
    }


def summary_lines(dead_letter: StoredDeadLetter) -> Iterator[Text]:
    """Yield a few lines about a dead letter; they are not to be wrapped, since ids are copied from them."""
    fields = summary(dead_letter)
    line = Text(one_line(fields["id"]), style="bold")
    line.append(f"  {fields['type'] or _UNREADABLE}", style="cyan")
    line.append(f"  {_when(dead_letter)}", style="dim")
    yield line
    places = {name: fields[name] for name in ("agent", "instance", "partition") if fields[name] is not None}
    yield Text(_INDENT + ", ".join(f"{name} {one_line(str(place))}" for name, place in places.items()))
    attempts = f" ({_attempts(dead_letter.attempts)})" if dead_letter.known else ""
    yield Text(f"{_INDENT}{one_line(dead_letter.reason[:_LONGEST_REASON])}{attempts}")


def summary_line(dead_letter: StoredDeadLetter, width: int) -> Text:
    """Return one line about a dead letter, for a list of many, of at most ``width`` characters."""
    line = Text(f"{one_line(dead_letter.id):<20}", style="bold")
    line.append(f"  {_when(dead_letter):<23}", style="dim")
    line.append(f"  {dead_letter.type:<23}", style="cyan")
    line.append(f"  {one_line(dead_letter.reason[:_LONGEST_REASON])}", style="default")
    line.truncate(width, overflow="ellipsis")
    return line


def group_json(group: Group, by: By) -> dict[str, Any]:
    """Return a group of dead letters as plain JSON."""
    counts = {"count": group.count, "dependents": group.dependents}
    return {by: group.name, **counts, "example": summary(group.example)}


def group_lines(groups: Sequence[Group], by: By, limit: int) -> Iterator[Text]:
    """Yield lines about the first ``limit`` groups, two for each, and one about the others."""
    total = sum(group.count for group in groups)
    yield Text(f"{count(total, DEAD_LETTER)}, by {by}:" if groups else "No dead letters.")
    for group in groups[:limit]:
        line = Text(f"{group.count:>9,}  ")
        line.append(one_line(group.name), style="bold")
        yield line
        dependents = f"{count(group.dependents, 'dependent')}; " if group.dependents else ""
        one = group.example
        example = f"{one_line(one.id)}, {one.type}, {_when(one)}"
        yield Text(f"{'':>9}  {dependents}for example {example}", style="dim")
    if rest := groups[limit:]:
        left = sum(group.count for group in rest)
        yield Text(f"{left:>9,}  in {count(len(rest), 'more group')}; --limit 0 lists all")


def whole_lines(dead_letter: StoredDeadLetter) -> Iterator[Text]:
    """Yield everything about a dead letter."""
    fields, envelope = whole(dead_letter), dead_letter.read()
    rows = {
        "operation": fields["id"],
        "type": fields["type"] or _UNREADABLE,
        "agent": fields["agent"],
        "instance": fields["instance"],
        "sequence": fields.get("sequence"),
        "partition": fields["partition"],
        "made": None if envelope is None else moment(envelope.operation.timestamp),
        "dead since": _when(dead_letter),
        "reason": fields["reason"],
        "attempts": "0, it was never sent" if fields["attempts"] == 0 else fields["attempts"],
        "API's reply": fields["reply"] or "none",
        "key": fields.get("key"),
        "SDK": fields.get("sdk"),
        "replayed": "before, at least once" if fields.get("replayed") else None,
    }
    for name, value in rows.items():
        if value is not None and value != "":
            line = Text(f"{name:<12}", style="dim")
            line.append(one_line(str(value)), style="default")
            yield line
    yield Text()
    if "body" in fields:
        yield Text("body", style="dim")
        yield Text(safe_json(fields["body"]))
    else:
        yield Text("envelope, as it is", style="dim")
        text = fields["envelope"] if "envelope" in fields else fields["envelope_base64"]
        yield Text(one_line(text) or "(it is empty)")


def _attempts(attempts: int) -> str:
    return count(attempts, "attempt") if attempts else "never sent"


def _when(dead_letter: StoredDeadLetter) -> str:
    return moment(dead_letter.at) if dead_letter.known else "at an unknown time"


def replay_json(replay: Replay, kinds: Mapping[str, Kind], *, known: bool) -> dict[str, Any]:
    """Return everything as plain JSON.

    Args:
        replay: What came of it.
        kinds: The kinds of what was to be replayed, by id.
        known: Whether its outcome was waited for and could be told; if not, that is null.
    """
    kept = [{"reason": reason, "count": len(ids), "ids": list(ids)} for reason, ids in replay.kept.items()]
    return {
        "replayed": replay.replayed,
        "unreadable": replay.unreadable,
        "gone": list(replay.gone),
        "delivered": replay.delivered if known else None,
        "kept": replay.kept_count if known else None,
        "kept_by_reason": kept if known else None,
        "pending": replay.pending if known else None,
        "groups": [outcome.as_json() for outcome in outcomes(kinds, replay)] if known else None,
    }


def replay_lines(replay: Replay, kinds: Mapping[str, Kind], wait: float, *, known: bool) -> Iterator[str]:
    """Yield lines for a terminal, no more than fit on a screen.

    Args:
        replay: What came of it.
        kinds: The kinds of what was to be replayed, by id.
        wait: Seconds without news after which the outcome was not waited for any longer.
        known: Whether it could be told at all.
    """
    outcome = ""
    if known and replay.replayed:
        pending = f", {replay.pending:,} pending" if replay.pending else ""
        outcome = f": {replay.delivered:,} delivered, {replay.kept_count:,} kept{pending}"
    yield f"{count(replay.replayed, DEAD_LETTER)} replayed{outcome}."
    if known:
        yield from _outcome_lines(replay, kinds)
        yield from _kept_lines(replay)
        if replay.pending:
            yield f"  {replay.pending:,} wait at the broker for a worker: no news for {wait:g} s"
    if not known and wait > 0 and replay.replayed:
        yield "  The outcome is not known: this transport does not tell it. Look at the list again later."
    if replay.gone:
        yield (
            f"  {len(replay.gone):,} gone by then, replayed or purged by somebody else; "
            f"for example {one_line(replay.gone[0])}"
        )


def _outcome_lines(replay: Replay, kinds: Mapping[str, Kind]) -> Iterator[str]:
    """Yield a table of what became of each kind, if there are several."""
    found = outcomes(kinds, replay)
    if len(found) < 2:
        return
    yield "  delivered      kept   pending"
    for one in found[:SCREEN]:
        kind = one_line(f"{one.kind.type}: {one.kind.reason}", _LONGEST_KIND)
        yield f"{one.delivered:>11,} {one.kept:>9,} {one.pending:>9,}  {kind}"
    if rest := found[SCREEN:]:
        delivered, kept = sum(one.delivered for one in rest), sum(one.kept for one in rest)
        pending = sum(one.pending for one in rest)
        yield f"{delivered:>11,} {kept:>9,} {pending:>9,}  in {count(len(rest), 'more group')}"


def _kept_lines(replay: Replay) -> Iterator[str]:
    """Yield why dead letters were kept, the most frequent reasons first."""
    kept: dict[str, list[str]] = {}
    for reason, ids in replay.kept.items():
        kept.setdefault(pattern_of(reason), []).extend(ids)
    found = sorted(kept.items(), key=lambda one: -len(one[1]))
    for reason, ids in found[:_MOST_REASONS]:
        yield f"  {len(ids):,} kept: {reason}; for example {one_line(ids[0])}"
    if rest := found[_MOST_REASONS:]:
        yield f"  {sum(len(ids) for _, ids in rest):,} kept for {count(len(rest), 'more reason')}"
