"""What came of a replay, as people and as programs read it."""

from collections.abc import Iterator
from typing import Any

from prefactor_core.broker.dead_letters import Replay
from prefactor_worker.operate.words import count, safe

_LETTER = "dead letter"


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
    yield f"{count(replay.replayed, _LETTER)} replayed{outcome}."
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
