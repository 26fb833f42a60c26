"""`dead-letters`: list, show, replay and purge, on the operator's word only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic_core import from_json, to_json

from prefactor_core.broker.dead_letters import Replay
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.execution.outcome import FOLLOWS, INSTANCE_OVER
from prefactor_core.queue.base import DeadLetter
from prefactor_worker.operate.dead_letter_groups import Kind
from prefactor_worker.operate.dead_letter_view import replay_lines, summary
from tests.support.operations import WHEN, create, finish_span, key_of, register, start
from tests.worker.commands import REASON, REPLY, Done, command, dead_letter, open_queue

OVER = f"{INSTANCE_OVER}: HTTP 409 invalid_action"
AGAIN = "conflict: HTTP 409 invalid_action"
PAYLOAD = {"answer": "a secret of the payload"}
TYPES = ["register_agent_instance", "start_agent_instance", "create_span", "finish_span"]


@pytest.fixture
async def filled(transport_url: str) -> str:
    """Dead letters of two instances, four each."""
    async with open_queue(transport_url) as queue:
        for instance in ("first", "second"):
            span = f"{instance}-span"
            operations = [register(instance), start(instance), create(instance, span, payload=PAYLOAD)]
            await dead_letter(queue, [*operations, finish_span(instance, span)])
    return transport_url


async def _letters(url: str, *arguments: str, **variables: str) -> Done:
    return await command("dead-letters", *arguments, PREFACTOR_TRANSPORT_URL=url, **variables)


async def _left(url: str) -> dict[str, str]:
    """Return the ids of the dead letters that there are, with their instances."""
    async with open_queue(url) as queue:
        return {record.id: summary(record)["instance"] async for record in queue.dead_letters.list()}


async def _waiting(url: str) -> list[str]:
    """Take what waits at the broker, and return its keys."""
    async with open_queue(url) as queue:
        return [(await queue.get()).idempotency_key or "" for _ in range(await queue.depth())]


async def test_what_is_listed_and_shown(filled: str) -> None:
    done = await _letters(filled, "list", "--json")
    assert (done.status, done.errors) == (0, "")
    assert "secret" not in done.output, "payloads and replies only when they are asked for"
    assert done.document["more"] is False
    all_dead = done.document["dead_letters"]
    for instance in ("first", "second"):
        own = [dead for dead in all_dead if dead["instance"] == instance]
        assert [dead["type"] for dead in own] == TYPES
        assert len({dead["partition"] for dead in own}) == 1
    assert len({dead["id"] for dead in all_dead}) == 8
    assert {(dead["reason"], dead["attempts"], dead["readable"]) for dead in all_dead} == {(REASON, 1, True)}
    created = next(one for one in all_dead if (one["instance"], one["type"]) == ("first", "create_span"))
    done = await _letters(filled, "show", created["id"], "--json")
    assert (done.status, done.errors) == (0, "")
    shown = done.document
    assert created.items() <= shown.items()
    assert (shown["reply"], shown["key"]) == (REPLY, "first-span:create")
    assert (shown["sequence"], shown["replayed"]) == (3, False)
    assert shown["created_at"] == WHEN.isoformat()
    assert shown["body"]["payload"] == PAYLOAD


async def test_what_people_read(redis_transport: str) -> None:
    async with open_queue(redis_transport) as queue:
        await dead_letter(
            queue, [register("first"), start("first"), create("second", "span", payload=PAYLOAD)]
        )
    left = await _left(redis_transport)
    (created,) = [one for one, instance in left.items() if instance == "second"]
    listed, shown, missing = await asyncio.gather(
        _letters(redis_transport, "list", "--instance", "first", "--limit", "1"),
        _letters(redis_transport, "show", created),
        _letters(redis_transport, "show", "no-such-one"),
    )
    assert (listed.status, listed.errors) == (0, "")
    assert listed.output.count("agent tester, instance first, partition") == 1
    assert "instance second" not in listed.output
    assert "The first 1 dead letter of more; --by reason counts them, --limit 0 lists all." in listed.output
    assert (shown.status, shown.errors) == (0, "")
    for words in (created, "create_span", "span:create", "2026-01-02 03:04:05 UTC", REPLY):
        assert words in shown.output
    assert '"answer": "a secret of the payload"' in shown.output
    assert (missing.status, missing.output) == (1, "")
    assert missing.errors == "prefactor-worker: not among the dead letters: no-such-one\n"


async def test_replay_by_id_and_by_instance(filled: str) -> None:
    left = await _left(filled)
    first, *others = [one for one, instance in left.items() if instance == "first"]
    done = await _letters(filled, "replay", first, "no-such-one", first, "--wait", "0")
    assert (done.status, done.output) == (1, "1 dead letter replayed.\n")
    assert done.errors == "prefactor-worker: not among the dead letters: no-such-one\n"
    done = await _letters(filled, "replay", "--instance", "second", "--json", "--wait", "0")
    assert (done.status, done.errors) == (0, "")
    nobody_asked = dict.fromkeys(["delivered", "kept", "kept_by_reason", "pending", "groups"])
    nothing = {"unreadable": 0, "gone": [], "skipped": 0, "not_found": []}
    assert done.document == {"replayed": 4, **nothing, **nobody_asked}
    assert list(await _left(filled)) == others
    keys = await _waiting(filled)
    assert [key for key in keys if key.startswith("second")] == [
        "second:register",
        "second:starting",
        "second-span:create",
        "second-span:finish",
    ]
    assert len(keys) == 5


async def test_new_keys_only_with_a_yes(redis_transport: str) -> None:
    async with open_queue(redis_transport) as queue:
        await dead_letter(queue, [register("only"), start("only")])
    refused = await _letters(redis_transport, "replay", "--all", "--new-key")
    assert (refused.status, refused.output) == (2, "")
    assert "Replay 2 dead letters with new idempotency keys?" in refused.errors
    assert "needs --yes" in refused.errors
    assert len(await _left(redis_transport)) == 2
    done = await _letters(redis_transport, "replay", "--all", "--new-key", "--yes", "--wait", "0")
    assert (done.status, done.output, done.errors) == (0, "2 dead letters replayed.\n", "")
    keys = await _waiting(redis_transport)
    assert len(set(keys)) == 2
    assert not set(keys) & {"only:register", "only:starting"}


@asynccontextmanager
async def _refusing(url: str, *keys: str) -> AsyncIterator[None]:
    """Settle what comes but what has one of these keys, as a worker whose API refuses those."""

    async def work(queue: BrokerQueue) -> None:
        while True:
            got = await queue.receive(100, 1 << 20)
            refused = [one for one in got if one.item.idempotency_key in keys]
            await queue.settle([one for one in got if one not in refused])
            await queue.dead_letter([(one, DeadLetter(one.item, AGAIN, 1, REPLY)) for one in refused])

    async with open_queue(url) as queue:
        working = asyncio.create_task(work(queue))
        try:
            yield
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def test_replay_says_what_was_delivered_and_what_was_kept(filled: str) -> None:
    async with _refusing(filled, "first-span:create", "first-span:finish"):
        done = await _letters(filled, "replay", "--instance", "first")
        kept = list(await _left(filled))
        assert (done.status, done.errors) == (1, "")
        told, header, *table, reason = done.output.splitlines()
        assert told == "4 dead letters replayed: 2 delivered, 2 kept."
        assert header.split() == ["delivered", "kept", "pending"]
        assert [row.split() for row in table] == [
            ["0", "1", "0", "create_span:", *REASON.split()],
            ["0", "1", "0", "finish_span:", *REASON.split()],
            ["1", "0", "0", "register_agent_instance:", *REASON.split()],
            ["1", "0", "0", "start_agent_instance:", *REASON.split()],
        ]
        assert reason.startswith(f"  2 kept: {AGAIN}; for example ")
        assert reason.rpartition(" ")[2] in kept
        assert "secret" not in done.output
        done = await _letters(filled, "replay", "--all", "--json")
        assert (done.status, done.errors) == (1, "")
        document = done.document
        assert (document["replayed"], document["delivered"], document["kept"]) == (6, 4, 2)
        (by_reason,) = document["kept_by_reason"]
        assert (by_reason["reason"], by_reason["count"]) == (AGAIN, 2)
        assert sorted(by_reason["ids"]) == sorted(await _left(filled))
        assert (document["pending"], document["unreadable"], document["gone"]) == (0, 0, [])
        again = [one for one in document["groups"] if one["reason"] == AGAIN]
        counts = {"delivered": 0, "kept": 1, "pending": 0}
        assert again == [
            {"type": type_, "reason": AGAIN, **counts} for type_ in ("create_span", "finish_span")
        ]
    async with _refusing(filled):
        done = await _letters(filled, "replay", "--all")
        assert (done.status, done.errors) == (0, "")
        assert done.output.startswith("2 dead letters replayed: 2 delivered, 0 kept.\n")
        assert await _left(filled) == {}


async def test_replay_says_what_waits_for_a_worker(filled: str) -> None:
    done = await _letters(filled, "replay", "--instance", "first", "--type", "create_span", "--wait", "1")
    assert (done.status, done.errors) == (1, "")
    assert done.output == (
        "1 dead letter replayed: 0 delivered, 0 kept, 1 pending.\n"
        "  1 wait at the broker for a worker: no news for 1 s\n"
    )


async def test_purge_takes_a_yes_and_only_what_was_named(filled: str) -> None:
    done = await _letters(filled, "purge", "--instance", "first", answer="y")
    assert (done.status, done.output) == (0, "4 dead letters purged.\n")
    first, *others = await _left(filled)
    done = await _letters(filled, "purge", first, "no-such-one", "--yes", "--json")
    assert (done.status, done.document) == (1, {"purged": 1, "not_found": ["no-such-one"]})
    left = await _left(filled)
    assert list(left) == others
    assert set(left.values()) == {"second"}


async def test_without_a_yes_nothing_is_purged(redis_transport: str) -> None:
    async with open_queue(redis_transport) as queue:
        await dead_letter(queue, [register("only"), start("only")])
    unasked, denied, nothing = await asyncio.gather(
        _letters(redis_transport, "purge", "--all"),
        _letters(redis_transport, "purge", "--all", answer="no"),
        _letters(redis_transport, "purge", "--instance", "other"),
    )
    assert (unasked.status, unasked.output) == (2, "")
    assert "Purge 2 dead letters for good?" in unasked.errors
    assert unasked.errors.count("\n") == 1
    assert (denied.status, denied.output) == (1, "")
    assert denied.errors.startswith("Purge 2 dead letters for good? Nothing brings them back. [y/N] ")
    assert denied.errors.endswith("nothing was changed\n")
    assert (nothing.status, nothing.output) == (0, "Nothing purged: there are no such dead letters.\n")
    assert len(await _left(redis_transport)) == 2


async def test_hostile_messages_are_listed_shown_and_purged(transport_url: str) -> None:
    made = from_json(encode(Envelope("made-early", 1, create("i", "s"), "sdk")))
    early = to_json(made | {"at": "0001-01-01T00:00:00+14:00"})
    hostile = [b"", b"{}", b"\xff\x1b[2J", to_json(made | {"key": "a\r\n\x1b[2J"}), early]
    async with open_queue(transport_url) as queue:
        async with queue.broker.publishing() as end:
            await end.partitions()
            await end.publish(0, hostile)
        (delivery,) = await queue.receive(10, 1 << 20)  # it stands behind the others
        await queue.dead_letter([(delivery, DeadLetter(delivery.item, "why", 0))])
    listed = await _letters(transport_url, "list", "--json")
    ids = [dead["id"] for dead in listed.document["dead_letters"]]
    assert len(ids) == len(hostile)
    assert "made-early" in ids
    for one in ids:
        shown = await _letters(transport_url, "show", one)
        assert (shown.status, shown.errors) == (0, "")
        assert one in shown.output
        assert all(character.isprintable() or character == "\n" for character in shown.output)
        assert "it was never sent" in shown.output
    done = await _letters(transport_url, "replay", "--all", "--wait", "0", "--json")
    assert (done.status, done.document["replayed"], done.document["unreadable"]) == (1, 1, 4)
    assert "Traceback" not in done.errors
    done = await _letters(transport_url, "purge", "--all", "--yes")
    assert (done.status, done.output) == (0, "4 dead letters purged.\n")


# -- many


@pytest.fixture
async def varied(redis_transport: str) -> str:
    """Dead letters of two agents and one that is not known, for three reasons."""
    async with open_queue(redis_transport) as queue:
        for instance, agent, refused in (("a", "one", 2), ("b", "two", 1)):
            await dead_letter(
                queue, [register(instance, agent)], "failed after 4 attempts: HTTP 500 internal_error"
            )
            spans = [create(instance, f"{instance}-{number}") for number in range(refused)]
            await dead_letter(queue, spans, REASON)
            await dead_letter(queue, [finish_span(instance, f"{instance}-0")], FOLLOWS + REASON)
        await dead_letter(queue, [create("c", "c-0")], OVER)
        await dead_letter(queue, [finish_span("c", "c-0")], FOLLOWS + OVER)
    return redis_transport


async def _keys_left(url: str) -> list[str]:
    async with open_queue(url) as queue:
        envelopes = [one.read() async for one in queue.dead_letters.list()]
    return sorted(key_of(one.operation) for one in envelopes if one is not None)


async def test_groups_and_what_selects(varied: str) -> None:
    by_reason, by_agent, by_type, found, one_each = await asyncio.gather(
        _letters(varied, "list", "--by", "reason", "--json"),
        _letters(varied, "list", "--by", "agent", "--json"),
        _letters(varied, "list", "--by", "type"),
        _letters(varied, "list", "--reason", "http * validation", "--agent", "one", "--type", "create_span"),
        _letters(varied, "list", "--limit", "8"),
    )
    reasons = by_reason.document["groups"]
    assert [(one["reason"], one["count"], one["dependents"]) for one in reasons] == [
        (REASON, 5, 2),
        ("failed after * attempts: HTTP 500 internal_error", 2, 0),
        (OVER, 2, 1),
    ]
    assert reasons[0]["example"]["reason"] == REASON
    assert [(one["agent"], one["count"]) for one in by_agent.document["groups"]] == [
        ("one", 4),
        ("two", 3),
        ("unknown", 2),
    ]
    assert "9 dead letters, by type:" in by_type.output
    assert [line.split() for line in by_type.output.splitlines()[1::2]] == [
        ["4", "create_span"],
        ["3", "finish_span"],
        ["2", "register_agent_instance"],
    ]
    assert found.output.count("agent one, instance a") == 2
    assert found.output.endswith("\n2 dead letters.\n")
    assert len(one_each.output.splitlines()) == 8 + 2, "a line for each"
    for done in (by_reason, by_agent, by_type, found, one_each):
        assert (done.status, done.errors) == (0, "")
        assert "secret" not in done.output


async def test_what_is_selected_is_replayed_and_purged_and_nothing_else(varied: str) -> None:
    before = await _keys_left(varied)
    done = await _letters(varied, "purge", "--agent", "two", "--reason", REASON, "--yes", "--json")
    assert (done.status, done.document["purged"]) == (0, 2)
    assert await _keys_left(varied) == [key for key in before if not key.startswith("b-")]
    done = await _letters(varied, "replay", "--type", "register_agent_instance", "--wait", "0", "--json")
    assert (done.status, done.document["replayed"]) == (0, 2)
    assert sorted(await _waiting(varied)) == ["a:register", "b:register"]
    assert await _keys_left(varied) == [key for key in before if key[:2] in {"a-", "c-"}]


async def test_a_replay_that_will_be_refused_is_asked_about(varied: str) -> None:
    before = await _keys_left(varied)
    warning = "2 of 9 dead letters will be refused again, since their instance is over; for example "
    alone, denied = await asyncio.gather(
        _letters(varied, "replay", "--all"), _letters(varied, "replay", "--all", answer="n")
    )
    assert (alone.status, alone.output) == (2, "")
    assert warning in alone.errors
    assert "--skip-over" in alone.errors
    assert "needs --yes" in alone.errors
    assert (denied.status, denied.output) == (1, "")
    assert warning in denied.errors
    assert denied.errors.endswith("nothing was changed\n")
    assert await _keys_left(varied) == before
    async with _refusing(varied, "c-0:create", "c-0:finish"):
        done = await _letters(varied, "replay", "--all", "--skip-over")
        assert done.status == 0
        assert "2 of 9 dead letters are left out, since their instance is over" in done.errors
        assert "7 dead letters replayed: 7 delivered, 0 kept." in done.output
        assert await _keys_left(varied) == ["c-0:create", "c-0:finish"]
        done = await _letters(varied, "replay", "--reason", "the instance is over", "--yes")
        assert done.status == 1
        assert "2 of 2 dead letters will be refused again" in done.errors
        assert "2 dead letters replayed: 0 delivered, 2 kept." in done.output
        assert await _keys_left(varied) == ["c-0:create", "c-0:finish"], "they stay dead letters"


# -- what is shown


def _shown(replay: Replay, *, known: bool, wait: float = 30.0) -> list[str]:
    kinds = {id_: Kind("create_span", f"why {id_}") for id_ in "abcdef"}
    return list(replay_lines(replay, kinds, wait, known=known))


def test_what_a_replay_says() -> None:
    kept = {"one \x1b[31m": ["a", "b"], "other": ["c"]}
    told, header, *table = _shown(Replay(("a", "b", "c", "f"), 1, ("d", "e"), ("f",), kept), known=True)
    assert told == "4 dead letters replayed: 1 delivered, 3 kept."
    assert header == "  delivered      kept   pending"
    assert table == [
        "          0         1         0  create_span: why a",
        "          0         1         0  create_span: why b",
        "          0         1         0  create_span: why c",
        "          1         0         0  create_span: why f",
        "  2 kept: one \\*[*; for example a",
        "  1 kept: other; for example c",
        "  2 gone by then, replayed or purged by somebody else; for example d",
    ]
    assert _shown(Replay(("a",)), known=True) == [
        "1 dead letter replayed: 0 delivered, 0 kept, 1 pending.",
        "  1 wait at the broker for a worker: no news for 30 s",
    ]
    assert _shown(Replay(("a",)), known=False, wait=0) == ["1 dead letter replayed."]
    unknown, why = _shown(Replay(("a",), answers=False), known=False)
    assert unknown == "1 dead letter replayed."
    assert "The outcome is not known: this transport does not tell it." in why
    assert _shown(Replay(gone=("a",)), known=True)[0] == "0 dead letters replayed."
