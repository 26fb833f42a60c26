"""What a reply means: every row of the table, and that there is a row for everything."""

import itertools
from typing import Any

import pytest

from prefactor_core import OperationType
from prefactor_core.api.replies import (
    Reply,
    Verdict,
    classify,
    classify_item,
    control_of,
    is_over,
    termination_of,
)

TYPES = list(OperationType)
FINISH = OperationType.FINISH_AGENT_INSTANCE
QUALITY = OperationType.RECORD_QUALITY
DEAD_LETTERS = {Verdict.REJECTED, Verdict.CONFLICT, Verdict.TOO_LARGE}


def error(code: str) -> dict[str, object]:
    return {"status": "error", "code": code, "message": "no"}


JSON_BODIES: dict[str, dict[str, Any]] = {
    "success": {"body": {"status": "success", "details": {}}},
    "another object": {"body": {"detail": "Not Found"}},
    "an error without a code": {"body": {"status": "error", "message": "no"}},
    "an error whose code is no string": {"body": {"status": "error", "code": 7}},
    "no body": {"empty": True},
    "a page": {},
}
"""Bodies that are not the API's error body."""

MAYBE = [pytest.param(False, id="first sending"), pytest.param(True, id="maybe sent before")]


@pytest.mark.parametrize("maybe_sent", MAYBE)
@pytest.mark.parametrize("kind", TYPES)
class TestEveryRow:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    @pytest.mark.parametrize("body", ["success", "another object", "no body"])
    def test_2xx_is_done(self, status: int, body: str, kind: OperationType, maybe_sent: bool) -> None:
        reply = Reply(status, **JSON_BODIES[body])
        assert classify(reply, kind, maybe_sent=maybe_sent) is Verdict.DONE

    @pytest.mark.parametrize("status", [200, 201])
    @pytest.mark.parametrize("body", [{}, {"body": error("conflict")}], ids=["a page", "an error"])
    def test_2xx_that_does_not_say_so_is_not_known_to_be_done(
        self, status: int, body: dict[str, Any], kind: OperationType, maybe_sent: bool
    ) -> None:
        assert classify(Reply(status, **body), kind, maybe_sent=maybe_sent) is Verdict.AGAIN

    @pytest.mark.parametrize("code", ["conflict", "invalid_action"])
    def test_409(self, code: str, kind: OperationType, maybe_sent: bool) -> None:
        opens = kind in {OperationType.REGISTER_AGENT_INSTANCE, OperationType.CREATE_SPAN}
        tells = code == ("conflict" if opens else "invalid_action")
        if maybe_sent and tells and kind is not QUALITY:
            expected = Verdict.DONE_BEFORE
        elif kind is FINISH and code == "invalid_action":
            expected = Verdict.OVER
        else:
            expected = Verdict.CONFLICT
        assert classify(Reply(409, error(code)), kind, maybe_sent=maybe_sent) is expected

    @pytest.mark.parametrize("code", ["idempotency_in_progress", "locked", ""])
    def test_409_with_another_code_is_in_flight(
        self, code: str, kind: OperationType, maybe_sent: bool
    ) -> None:
        assert classify(Reply(409, error(code)), kind, maybe_sent=maybe_sent) is Verdict.AGAIN

    @pytest.mark.parametrize("status", [401, 403])
    def test_not_allowed_asks_for_a_ping(self, status: int, kind: OperationType, maybe_sent: bool) -> None:
        reply = Reply(status, error("unauthorized"))
        assert classify(reply, kind, maybe_sent=maybe_sent) is Verdict.TOKEN

    @pytest.mark.parametrize("body", [{"body": error("too_many")}, *JSON_BODIES.values()])
    def test_429_is_throttled(self, body: dict[str, Any], kind: OperationType, maybe_sent: bool) -> None:
        for retry_on in ((), (429, 500)):
            verdict = classify(Reply(429, **body), kind, maybe_sent=maybe_sent, retry_on=retry_on)
            assert verdict is Verdict.THROTTLED

    @pytest.mark.parametrize("status", [408, 425, 500, 501, 502, 503, 504, 599])
    @pytest.mark.parametrize("body", [{"body": error("conflict")}, *JSON_BODIES.values()])
    def test_not_known_to_be_done(
        self, status: int, body: dict[str, Any], kind: OperationType, maybe_sent: bool
    ) -> None:
        assert classify(Reply(status, **body), kind, maybe_sent=maybe_sent) is Verdict.AGAIN

    @pytest.mark.parametrize("reached", [False, True])
    def test_no_reply(self, reached: bool, kind: OperationType, maybe_sent: bool) -> None:
        reply = Reply(None, failure="ReadTimeout", reached=reached)
        assert classify(reply, kind, maybe_sent=maybe_sent) is Verdict.AGAIN

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (400, Verdict.REJECTED),
            (404, Verdict.REJECTED),
            (422, Verdict.REJECTED),
            (413, Verdict.TOO_LARGE),
        ],
    )
    def test_refused_by_the_api(
        self, status: int, expected: Verdict, kind: OperationType, maybe_sent: bool
    ) -> None:
        reply = Reply(status, error("validation"))
        assert classify(reply, kind, maybe_sent=maybe_sent) is expected
        assert classify(reply, kind, maybe_sent=maybe_sent, retry_on={status}) is Verdict.AGAIN

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
    @pytest.mark.parametrize("body", JSON_BODIES.values(), ids=JSON_BODIES)
    def test_refused_by_something_that_is_not_the_api(
        self, status: int, body: dict[str, Any], kind: OperationType, maybe_sent: bool
    ) -> None:
        assert classify(Reply(status, **body), kind, maybe_sent=maybe_sent) is Verdict.AGAIN

    @pytest.mark.parametrize("status", [100, 199, 300, 302, 304, 402, 405, 406, 410, 418, 451, 499])
    @pytest.mark.parametrize("body", [{"body": error("conflict")}, *JSON_BODIES.values()])
    def test_anything_else(
        self, status: int, body: dict[str, Any], kind: OperationType, maybe_sent: bool
    ) -> None:
        assert classify(Reply(status, **body), kind, maybe_sent=maybe_sent) is Verdict.AGAIN


def test_there_is_a_verdict_for_everything_and_a_dead_letter_only_where_the_api_says_so() -> None:
    bodies: list[dict[str, Any]] = [*JSON_BODIES.values()]
    bodies += [{"body": error(code)} for code in ("conflict", "invalid_action", "other")]
    for status, body, kind, maybe_sent in itertools.product(
        [None, *range(100, 600)], bodies, TYPES, [False, True]
    ):
        reply = Reply(status, **body)
        verdict = classify(reply, kind, maybe_sent=maybe_sent)
        assert isinstance(verdict, Verdict)
        if verdict in DEAD_LETTERS:
            assert status in {400, 404, 409, 413, 422}, reply
            assert reply.code is not None
        if verdict in {Verdict.DONE, Verdict.DONE_BEFORE, Verdict.OVER}:
            assert status == 409 or (status is not None and 200 <= status < 300), reply


@pytest.mark.parametrize("maybe_sent", MAYBE)
@pytest.mark.parametrize("kind", TYPES)
def test_the_items_of_a_bulk_reply(kind: OperationType, maybe_sent: bool) -> None:
    assert classify_item({"status": "success"}, kind, maybe_sent=maybe_sent) is Verdict.DONE
    for code in ("conflict", "invalid_action"):
        alone = classify(Reply(409, error(code)), kind, maybe_sent=maybe_sent)
        # Whether an instance is over is asked in a request of its own.
        expected = None if alone is Verdict.OVER else alone
        assert classify_item(error(code), kind, maybe_sent=maybe_sent) is expected
    unclear: list[dict[str, object]] = [{"status": "error"}, {"status": "error", "code": 7}, {}]
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


FORGED = [
    "ok\n2026-01-01 WARNING forged",
    "ok\r",
    "nul\x00",
    "\x1b[31mred",
    "\u2028",
    "\u202egnp",
    "\ud800",
    "",
    "x" * 50_000,
]


@pytest.mark.parametrize("name", FORGED, ids=range(len(FORGED)))
def test_names_that_the_api_gives_forge_no_lines_of_a_log(name: str) -> None:
    reply = Reply(422, {**error(name), "errors": {"age": [], name: ["no"]}})
    assert reply.code == name
    text = "HTTP 422 a code that cannot be shown (age, a field name that cannot be shown)"
    assert str(reply) == text
    assert reply.detail.startswith(text)


def test_of_very_many_field_names_the_first_are_shown() -> None:
    reply = Reply(422, {**error("invalid"), "errors": {f"field{number}": [] for number in range(10_000)}})
    assert str(reply).endswith(", field19, 9980 more)")
    assert len(str(reply)) < 300


def test_the_reason_of_a_termination_is_bounded() -> None:
    reason = "x" * 50_000
    assert control_of({"control": {"terminate": True, "reason": reason}}) == reason[:2_000]
    ended = Reply(200, {"details": {"status": "terminated", "termination_reason": reason}})
    assert termination_of(ended) == reason[:2_000]


def test_what_a_dead_letter_keeps_of_a_reply_is_bounded() -> None:
    reply = Reply(422, {**error("v"), "message": "x" * 5_000, "errors": ["y"] * 1_000})
    assert (len(reply.detail), reply.detail[-4:]) == (2_000, "x...")


@pytest.mark.parametrize(
    ("status", "over"),
    [
        ("complete", True),
        ("failed", True),
        ("cancelled", True),
        ("terminated", True),
        ("pending", False),
        ("active", False),
    ],
)
def test_an_instance_that_was_read_is_over_or_not(status: str, over: bool) -> None:
    assert is_over(Reply(200, {"status": "success", "details": {"status": status}})) is over


@pytest.mark.parametrize(
    "reply",
    [
        Reply(None),
        Reply(200),
        Reply(200, {"status": "success"}),
        Reply(200, {"details": []}),
        Reply(200, {"details": {}}),
        Reply(502, {"details": {"status": "complete"}}),
        Reply(404, error("not_found")),
    ],
)
def test_a_reply_that_does_not_tell_leaves_it_open(reply: Reply) -> None:
    assert is_over(reply) is None
