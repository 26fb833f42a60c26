"""Groups of dead letters: what belongs together, whatever ids and numbers say; and they fit on a screen."""

import io

import pytest
from rich.console import Console

from prefactor_core.broker.dead_letters import UNKNOWN, UNREAD, Replay, Selection, StoredDeadLetter
from prefactor_core.broker.envelope import Envelope, encode
from prefactor_core.execution.outcome import FOLLOWS, INSTANCE_OVER
from prefactor_core.operations import Operation
from prefactor_worker.operate.dead_letter_groups import (
    By,
    Group,
    Groups,
    Kind,
    is_over,
    outcomes,
    pattern_of,
)
from prefactor_worker.operate.dead_letter_view import SCREEN, group_lines, replay_lines
from tests.support.operations import create, finish_span, quality, register

PATTERNS = {
    "failed after 4 attempts: HTTP 500 internal_error": "failed after * attempts: HTTP 500 internal_error",
    "failed after 12 attempts: ReadTimeout": "failed after * attempts: ReadTimeout",
    "failed after 4 attempts: HTTP 502 without the API's JSON": (
        "failed after * attempts: HTTP 502 without the API's JSON"
    ),
    "rejected: HTTP 422 code_17 (payload.items.3.x)": "rejected: HTTP 422 code_17 (payload.items.*.x)",
    "1,064,961 bytes, an envelope has at most 1,064,960": "* bytes, an envelope has at most *",
    "of 01hzxyabcd0123456789abcdefghjkmn:create, key a-b-7.": "of *:create, key *.",
    "its workers crashed each time they handled it": "its workers crashed each time they handled it",
    "": "",
}


def dead_letter(
    operation: Operation, reason: str, *, number: int = 1, agent: str | None = None
) -> StoredDeadLetter:
    envelope = Envelope(f"0123456789abcdef-{number}", number, operation, "sdk@1", agent=agent)
    return StoredDeadLetter.of(encode(envelope), 0, reason, 1, None)


def grouped(by: By, *dead_letters: StoredDeadLetter) -> list[Group]:
    groups = Groups(by)
    for one in dead_letters:
        groups.add(one)
    return groups.largest_first()


def counts(groups: list[Group]) -> list[tuple[str, int, int]]:
    return [(group.name, group.count, group.dependents) for group in groups]


@pytest.mark.parametrize(("reason", "pattern"), PATTERNS.items())
def test_a_pattern_says_what_a_reason_says_and_selects_it(reason: str, pattern: str) -> None:
    assert pattern_of(reason) == pattern
    for own in (reason, FOLLOWS + reason):
        assert Selection(reason=pattern).takes(dead_letter(quality("a"), own)), "a pattern is a filter"


def test_a_pattern_of_any_text_is_short_fit_for_a_line_and_selects_it() -> None:
    for reason in (
        "\x1b[2J\r\n\x00",
        "x" * 100_000,
        "-" * 100_000,
        "a-" * 50_000,
        "7" * 1_000,
        "* ** 5",
        "\u202e",
    ):
        pattern = pattern_of(reason)
        assert len(pattern) <= 88
        assert pattern.isprintable()
        assert Selection(reason=pattern).takes(dead_letter(quality("a"), reason)), reason[:20]


def test_dependents_are_with_what_they_follow_and_the_example_is_none_of_them() -> None:
    why = "rejected: HTTP 422 validation_error (payload)"
    found = grouped(
        "reason",
        dead_letter(finish_span("a", "s1"), FOLLOWS + why, number=1),
        dead_letter(finish_span("a", "s2"), FOLLOWS + why, number=2),
        dead_letter(create("a", "s3"), why, number=3),
        dead_letter(create("a", "s4"), why, number=4),
        *(dead_letter(quality("a"), f"failed after {n} attempts: HTTP 500 x", number=n) for n in range(5, 8)),
    )
    assert counts(found) == [(why, 4, 2), ("failed after * attempts: HTTP 500 x", 3, 0)]
    assert [group.example.id for group in found] == ["0123456789abcdef-3", "0123456789abcdef-5"]


def test_agents_and_types() -> None:
    dead = [
        dead_letter(register("a", "by-name"), "why", number=1),
        dead_letter(create("a", "s"), "why", number=2, agent="by-name"),
        dead_letter(quality("b"), "why", number=3),
        StoredDeadLetter.of(b"\xff", 0, "unreadable: not JSON", 0, None),
    ]
    assert counts(grouped("agent", *dead)) == [("by-name", 2, 0), (UNKNOWN, 2, 0)]
    assert {name for name, _, _ in counts(grouped("type", *dead))} == {
        "register_agent_instance",
        "create_span",
        "record_quality",
        UNREAD,
    }


def test_who_will_be_refused_again() -> None:
    over = f"{INSTANCE_OVER}: HTTP 409 invalid_action"
    assert is_over(over)
    assert is_over(FOLLOWS + over)
    assert is_over(pattern_of(FOLLOWS + over))
    assert not is_over("conflict: HTTP 409 invalid_action")
    assert not is_over(f"rejected: {over}")


def shown(groups: list[Group], by: By, limit: int = SCREEN) -> list[str]:
    text = io.StringIO()
    console = Console(file=text, soft_wrap=True, width=120)
    for line in group_lines(groups, by, limit):
        console.print(line)
    return text.getvalue().splitlines()


@pytest.mark.parametrize("by", ["reason", "agent", "type"])
def test_three_thousand_fit_on_a_screen(by: By) -> None:
    dead = [
        dead_letter(
            create("i", "s"),
            f"{FOLLOWS if number % 3 else ''}rejected: HTTP {400 + number % 40} {'x' * 100} \x1b[31m",
            number=number,
            agent=f"agent {'y' * 80} {number % 50}",
        )
        for number in range(3_000)
    ]
    lines = shown(grouped(by, *dead), by)
    assert lines[0] == f"3,000 dead letters, by {by}:"
    assert len(lines) < 24
    assert max(map(len, lines)) <= 120
    assert all(line.isprintable() for line in lines)
    if by != "type":
        assert lines[-1].endswith(" more groups; --limit 0 lists all")
    assert len(shown(grouped(by, *dead), by, 10_000)) == 1 + 2 * len(grouped(by, *dead))
    assert shown([], by) == ["No dead letters."]


def test_a_replay_of_any_kinds_fits_on_a_screen() -> None:
    ids = [f"0123456789abcdef-{number}" for number in range(3_000)]
    kinds = {
        id_: Kind("register_agent_instance", pattern_of(f"rejected: HTTP {400 + place % 40} {'x' * 100}"))
        for place, id_ in enumerate(ids)
    }
    kept = {f"refused: HTTP {500 + place} {'x' * 100}": ids[place::100] for place in range(60)}
    replay = Replay(ids, 0, ids[:3], tuple(ids[90::100]), kept)
    lines = list(replay_lines(replay, kinds, 30, known=True))
    assert len(lines) < 24
    assert max(map(len, lines)) <= 140
    found = outcomes(kinds, replay)
    assert len(found) == 40
    assert sum(one.delivered for one in found) == 30
    assert sum(one.kept for one in found) == 60 * 30
    assert sum(one.pending for one in found) == 3_000 - 30 - 60 * 30
    table = [line.split()[:3] for line in lines[2 : 2 + SCREEN + 1]]
    assert [sum(int(row[column].replace(",", "")) for row in table) for column in range(3)] == [
        30,
        1_800,
        1_170,
    ]
