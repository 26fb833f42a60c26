"""What a reply means: every row of the table, and that there is a row for everything."""

import itertools
from typing import Any

import pytest

from prefactor_core import OperationType
from prefactor_core.api.replies import (
    Reply,
    Standing,
    Termination,
    Verdict,
    classify,
    classify_item,
    control_of,
    standing_of,
    termination_of,
)

REGISTER = OperationType.REGISTER_AGENT_INSTANCE
FINISH = OperationType.FINISH_AGENT_INSTANCE
QUALITY = OperationType.RECORD_QUALITY
SENDINGS = [(kind, maybe_sent) for kind in OperationType for maybe_sent in (False, True)]
DEAD_LETTERS = {Verdict.REJECTED, Verdict.CONFLICT, Verdict.TOO_LARGE}


def error(code: str) -> dict[str, object]:
    return {"status": "error", "code": code, "message": "no"}


SUCCESS: dict[str, Any] = {"body": {"status": "success", "details": {}}}
ANOTHER: dict[str, Any] = {"body": {"detail": "Not Found"}}
NOTHING: dict[str, Any] = {"empty": True}
PAGE: dict[str, Any] = {}
CONFLICT: dict[str, Any] = {"body": error("conflict")}
NOT_THE_APIS: list[dict[str, Any]] = [SUCCESS, ANOTHER, NOTHING, PAGE]
NOT_THE_APIS += [{"body": {"status": "error", "message": "no"}}, {"body": {"status": "error", "code": 7}}]
"""Bodies that are not the API's error body."""

ROWS: list[tuple[str, list[int | None], list[dict[str, Any]], Verdict]] = [
    ("done", [200, 201, 202, 204, 299], [SUCCESS, ANOTHER, NOTHING], Verdict.DONE),
    ("2xx that does not say that it is done", [200, 201], [PAGE, CONFLICT], Verdict.AGAIN),
    ("not allowed: a ping tells why", [401, 403], [{"body": error("unauthorized")}], Verdict.TOKEN),
    (
        "not known to be done",
        [408, 425, 429, 500, 501, 502, 503, 504, 599],
        [CONFLICT, *NOT_THE_APIS],
        Verdict.AGAIN,
    ),
    (
        "no reply",
        [None],
        [{"failure": "ReadTimeout", "reached": reached} for reached in (False, True)],
        Verdict.AGAIN,
    ),
    ("refused by the API", [400, 404, 422], [{"body": error("validation")}], Verdict.REJECTED),
    ("too large for the API", [413], [{"body": error("validation")}], Verdict.TOO_LARGE),
    ("refused by another", [400, 401, 403, 404, 409, 413, 422], NOT_THE_APIS, Verdict.AGAIN),
    (
        "anything else",
        [100, 199, 300, 302, 304, 402, 405, 406, 410, 418, 451, 499],
        [CONFLICT, *NOT_THE_APIS],
        Verdict.AGAIN,
    ),
]


@pytest.mark.parametrize(
    ("statuses", "bodies", "expected"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_every_row(statuses: list[int | None], bodies: list[dict[str, Any]], expected: Verdict) -> None:
    wrong = []
    for status, body, (kind, maybe_sent) in itertools.product(statuses, bodies, SENDINGS):
        reply = Reply(status, **body)
        cases: list[tuple[set[int], Verdict]] = [(set(), expected)]
        if status is not None:
            cases.append(({status, 500}, Verdict.AGAIN))
        for retry_on, right in cases:
            verdict = classify(reply, kind, maybe_sent=maybe_sent, retry_on=retry_on)
            if verdict is not right:
                wrong.append((status, body, kind, maybe_sent, retry_on, verdict))
    assert wrong == []


def test_409(subtests: pytest.Subtests) -> None:
    for code, (kind, maybe_sent) in itertools.product(("conflict", "invalid_action"), SENDINGS):
        state = code == "invalid_action"
        opens = kind in {REGISTER, OperationType.CREATE_SPAN}
        repeated = maybe_sent and state is not opens and kind is not QUALITY
        if repeated or (state and kind is OperationType.FINISH_SPAN):
            expected = Verdict.OVERTAKEN
        elif kind is FINISH or (state and kind is not REGISTER):
            expected = Verdict.OVER
        else:
            expected = Verdict.CONFLICT
        with subtests.test(f"{code}, {kind}, maybe sent before: {maybe_sent}"):
            assert classify(Reply(409, error(code)), kind, maybe_sent=maybe_sent) is expected


def test_409_that_says_it_is_in_flight(subtests: pytest.Subtests) -> None:
    for code, (kind, maybe_sent) in itertools.product(("idempotency_in_progress", "locked", ""), SENDINGS):
        expected = Verdict.OVER if kind is FINISH else Verdict.AGAIN  # published clients take it for finished
        with subtests.test(f"{code}, {kind}, maybe sent before: {maybe_sent}"):
            reply = Reply(409, error(code))
            assert classify(reply, kind, maybe_sent=maybe_sent) is expected
            assert classify(reply, kind, maybe_sent=maybe_sent, retry_on={409}) is Verdict.AGAIN


def test_there_is_a_verdict_for_everything_and_a_dead_letter_only_where_the_api_says_so() -> None:
    bodies = [*NOT_THE_APIS, *({"body": error(code)} for code in ("conflict", "invalid_action", "other"))]
    for status, body, (kind, maybe_sent) in itertools.product([None, *range(100, 600)], bodies, SENDINGS):
        reply = Reply(status, **body)
        verdict = classify(reply, kind, maybe_sent=maybe_sent)
        assert isinstance(verdict, Verdict)
        if verdict in DEAD_LETTERS:
            assert status in {400, 404, 409, 413, 422}, reply
            assert reply.code is not None
        if verdict in {Verdict.DONE, Verdict.OVERTAKEN, Verdict.OVER}:
            assert status == 409 or (status is not None and 200 <= status < 300), reply


def test_the_items_of_a_bulk_reply(subtests: pytest.Subtests) -> None:
    unclear: list[dict[str, object]] = [{"status": "error"}, {"status": "error", "code": 7}, {}]
    for kind, maybe_sent in SENDINGS:
        with subtests.test(f"{kind}, maybe sent before: {maybe_sent}"):
            assert classify_item({"status": "success"}, kind, maybe_sent=maybe_sent) is Verdict.DONE
            for code in ("conflict", "invalid_action"):
                alone = classify(Reply(409, error(code)), kind, maybe_sent=maybe_sent)
                assert classify_item(error(code), kind, maybe_sent=maybe_sent) is alone
            for unknown in (error("validation"), error(""), *unclear):
                assert classify_item(unknown, kind, maybe_sent=maybe_sent) is None


@pytest.mark.parametrize(
    ("reply", "text", "detail"),
    [
        (Reply(None), "no reply", "no reply"),
        (Reply(None, failure="ReadTimeout: 30 s"), "ReadTimeout: 30 s", "ReadTimeout: 30 s"),
        (
            Reply(200, failure="it is larger than 8 MiB", too_large=True),
            *(("HTTP 200, and its body was not read: it is larger than 8 MiB",) * 2),
        ),
        (Reply(502), "HTTP 502 without the API's JSON", "HTTP 502 without the API's JSON"),
        (Reply(404, {"detail": "x"}), "HTTP 404", "HTTP 404"),
        (Reply(422, error("invalid")), "HTTP 422 invalid", "HTTP 422 invalid: no"),
        (
            Reply(422, {**error("invalid"), "errors": {"name": ["'S3CRET' is long"], "age": ["no"]}}),
            "HTTP 422 invalid (name, age)",
            "HTTP 422 invalid (name, age): no {'name': [\"'S3CRET' is long\"], 'age': ['no']}",
        ),
        (Reply(422, {**error("v"), "errors": ["S3CRET"]}), "HTTP 422 v", "HTTP 422 v: no ['S3CRET']"),
        (Reply(422, {"status": "error", "code": "v"}), "HTTP 422 v", "HTTP 422 v: "),
    ],
)
def test_a_reply_is_shown_without_the_apis_words_in_logs_and_with_them_in_dead_letters(
    reply: Reply, text: str, detail: str
) -> None:
    assert (str(reply), reply.detail) == (text, detail)


def test_names_that_the_api_gives_forge_no_lines_of_a_log(subtests: pytest.Subtests) -> None:
    forged = ["ok\n2026-01-01 WARNING forged", "ok\r", "nul\x00", "\x1b[31mred", "\u2028", "\u202egnp"]
    for name in [*forged, "\ud800", "", "x" * 50_000]:
        with subtests.test(ascii(name[:50])):
            reply = Reply(422, {**error(name), "errors": {"age": [], name: ["no"]}})
            assert reply.code == name
            text = "HTTP 422 a code that cannot be shown (age, a field name that cannot be shown)"
            assert str(reply) == text
            assert reply.detail.startswith(text)


def test_what_is_shown_and_kept_of_a_reply_is_bounded() -> None:
    reply = Reply(422, {**error("invalid"), "errors": {f"field{number}": [] for number in range(10_000)}})
    assert str(reply).endswith(", field19, 9980 more)")
    assert len(str(reply)) < 300
    reply = Reply(422, {**error("v"), "message": "x" * 5_000, "errors": ["y"] * 1_000})
    assert (len(reply.detail), reply.detail[-4:]) == (2_000, "x...")
    reason = "x" * 50_000
    asked = control_of({"control": {"terminate": True, "reason": reason}})
    assert asked == Termination(reason[:2_000])
    ended = Reply(200, {"details": {"status": "terminated", "termination_reason": reason}})
    assert termination_of(ended) == asked


@pytest.mark.parametrize("reason", [None, ""])
def test_who_terminates_need_not_say_why(reason: str | None) -> None:
    assert control_of({"control": {"terminate": True, "reason": reason}}) == Termination(None)
    assert control_of({"control": {"terminate": True}}) == Termination(None)
    assert control_of({"control": {"terminate": False, "reason": "x"}}) is None
    ended = Reply(200, {"details": {"status": "terminated", "termination_reason": reason}})
    assert termination_of(ended) == Termination(None)


def test_how_it_stands_with_an_instance_that_was_read(subtests: pytest.Subtests) -> None:
    finished = dict.fromkeys(["complete", "failed", "cancelled"], Standing.FINISHED)
    states = finished | {"terminated": Standing.TERMINATED, "pending": Standing.OPEN, "active": Standing.OPEN}
    for state, expected in states.items():
        with subtests.test(state):
            assert standing_of(Reply(200, {"status": "success", "details": {"status": state}})) is expected
    for status in (401, 403, 404):
        with subtests.test("not for this token", status=status):
            assert standing_of(Reply(status, error("unauthorized"))) is Standing.UNREADABLE
            assert standing_of(Reply(status)) is None, "a proxy's page"
    silent: list[Reply] = [Reply(None), Reply(200), Reply(429, error("throttled"))]
    silent += [Reply(200, {"status": "success"}), Reply(200, {"details": []}), Reply(200, {"details": {}})]
    silent += [Reply(502, {"details": {"status": "complete"}})]
    for number, reply in enumerate(silent):
        with subtests.test("it does not tell", number=number):
            assert standing_of(reply) is None
