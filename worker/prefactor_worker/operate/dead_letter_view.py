"""Dead letters, and what came of replaying them, as people and as programs read it."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic_core import from_json
from rich.text import Text

from prefactor_core.broker.dead_letters import Replay, StoredDeadLetter, envelope_fields
from prefactor_worker.operate.words import count, moment, safe, safe_json

_UNREADABLE: Final = "cannot be read by this release"
_INDENT: Final = "    "
DEAD_LETTER: Final = "dead letter"
_LONGEST_REASON: Final = 500
"""Characters of a reason in a list; ``show`` has all of it."""


def summary(record: StoredDeadLetter) -> dict[str, Any]:
    """Return what may be shown unasked: no payload, and no reply, which may quote one."""
    envelope = record.read()
    operation = None if envelope is None else envelope.operation
    return {
        "id": record.id,
        "readable": envelope is not None,
        "type": None if operation is None else operation.type.value,
        "instance": None if operation is None else operation.instance_id,
        "partition": record.partition,
        "at": record.at.isoformat() if record.known else None,
        "attempts": record.attempts if record.known else None,
        "reason": record.reason,
    }


def whole(record: StoredDeadLetter) -> dict[str, Any]:
    """Return all there is, the payload too."""
    found = summary(record) | {"reply": record.reply}
    envelope = record.read()
    if envelope is None:
        return found | envelope_fields(record.envelope)
    operation = envelope.operation
    return found | {
        "sequence": envelope.sequence,
        "key": operation.idempotency_key,
        "created_at": operation.timestamp.isoformat(),
        "sdk": envelope.sdk_header,
        "replayed": envelope.replayed,
        "body": from_json(record.envelope)["body"],
    }


def summary_lines(record: StoredDeadLetter) -> Iterator[Text]:
    """Yield a few lines about a dead letter; they are not to be wrapped, since ids are copied from them."""
    fields = summary(record)
    line = Text(safe(fields["id"]), style="bold")
    line.append(f"  {fields['type'] or _UNREADABLE}", style="cyan")
    line.append(f"  {_when(record)}", style="dim")
    yield line
    if fields["instance"]:
        yield Text(f"{_INDENT}instance {safe(fields['instance'])}, partition {fields['partition']}")
    else:
        yield Text(f"{_INDENT}partition {fields['partition']}")
    tried = f" ({_tried(record.attempts)})" if record.known else ""
    yield Text(f"{_INDENT}{safe(record.reason[:_LONGEST_REASON])}{tried}")


def whole_lines(record: StoredDeadLetter) -> Iterator[Text]:
    """Yield everything about a dead letter."""
    fields, envelope = whole(record), record.read()
    rows = {
        "operation": fields["id"],
        "type": fields["type"] or _UNREADABLE,
        "instance": fields["instance"],
        "sequence": fields.get("sequence"),
        "partition": fields["partition"],
        "made": None if envelope is None else moment(envelope.operation.timestamp),
        "dead since": _when(record),
        "reason": fields["reason"],
        "attempts": "0, it was never tried" if fields["attempts"] == 0 else fields["attempts"],
        "API's reply": fields["reply"] or "none",
        "key": fields.get("key"),
        "SDK": fields.get("sdk"),
        "replayed": "before, at least once" if fields.get("replayed") else None,
    }
    for name, value in rows.items():
        if value is not None and value != "":
            line = Text(f"{name:<12}", style="dim")
            line.append(safe(str(value)), style="default")
            yield line
    yield Text()
    if "body" in fields:
        yield Text("body", style="dim")
        yield Text(safe_json(fields["body"]))
    else:
        yield Text("envelope, as it is", style="dim")
        text = fields["envelope"] if "envelope" in fields else fields["envelope_base64"]
        yield Text(safe(text) or "(it is empty)")


def _tried(attempts: int) -> str:
    if attempts == 0:
        return "never tried"
    return "tried once" if attempts == 1 else f"tried {attempts:,} times"


def _when(record: StoredDeadLetter) -> str:
    return moment(record.at) if record.known else "at an unknown time"


def replay_json(replay: Replay, *, known: bool) -> dict[str, Any]:
    """Return everything as plain JSON.

    Args:
        replay: What came of it.
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
    }


def replay_lines(replay: Replay, wait: float, *, known: bool) -> Iterator[str]:
    """Yield lines for a terminal.

    Args:
        replay: What came of it.
        wait: Seconds without news after which the outcome was not waited for any longer.
        known: Whether it could be told at all.
    """
    outcome = ""
    if known and replay.replayed:
        pending = f", {replay.pending:,} pending" if replay.pending else ""
        outcome = f": {replay.delivered:,} delivered, {replay.kept_count:,} kept{pending}"
    yield f"{count(replay.replayed, DEAD_LETTER)} replayed{outcome}."
    for reason, ids in replay.kept.items():
        yield f"  {len(ids):,} kept: {safe(reason)}; for example {safe(ids[0])}"
    if known and replay.pending:
        yield f"  {replay.pending:,} wait at the broker for a worker: no news for {wait:g} s"
    if not known and wait > 0 and replay.replayed:
        yield "  The outcome is not known: this transport does not tell it. Look at the list again later."
    if replay.gone:
        yield (
            f"  {len(replay.gone):,} gone by then, replayed or purged by somebody else; "
            f"for example {safe(replay.gone[0])}"
        )
