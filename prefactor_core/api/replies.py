"""What a reply means: ``classify`` judges a request's reply, ``classify_item`` one output of a bulk reply.

``tests/unit/test_replies.py`` holds the rules.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from prefactor_core.operations import SPAN, Operation, OperationType, Stage
from prefactor_core.texts import name, names

_LONGEST_DETAIL: Final = 2_000
"""Characters of a reply that a dead letter keeps."""
_LONGEST_REASON: Final = 2_000
"""Characters of the reason for a termination that are kept for the agent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from one request.

    Attributes:
        status: HTTP status; ``None`` without one.
        body: The body, if it is a JSON object.
        empty: Whether the body was empty.
        retry_after: Seconds that ``Retry-After`` asks for.
        failure: Why there is no reply, or why its body was not read.
        reached: Whether the request may have reached the API.
        too_large: Whether the body was larger than it may be, and was not read to its end.
    """

    status: int | None
    body: dict[str, object] | None = field(default=None, repr=False)
    empty: bool = False
    retry_after: float = 0.0
    failure: str | None = None
    reached: bool = True
    too_large: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether its status is a success, whatever it says."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def code(self) -> str | None:
        """The API's error code, if the body is the API's error body."""
        if self.body is None or self.body.get("status") != "error":
            return None
        code = self.body.get("code")
        return code if isinstance(code, str) else None

    def __str__(self) -> str:
        """Say what came back in one line, fit for logs.

        The API's words may quote a payload; its code and its field names do not.
        """
        if self.status is None:
            return self.failure or "no reply"
        if self.failure is not None:
            return f"HTTP {self.status}, and its body was not read: {self.failure}"
        if self.code is None:
            spoken = "" if self.body is not None else " without the API's JSON"
            return f"HTTP {self.status}{spoken}"
        errors = self.body.get("errors") if self.body is not None else None
        fields = f" ({names(errors, 'field name')})" if isinstance(errors, dict) and errors else ""
        return f"HTTP {self.status} {name(self.code, 'code')}{fields}"

    @property
    def detail(self) -> str:
        """The reply with the API's own words, for a dead letter."""
        if self.code is None or self.body is None:
            return str(self)
        text = f"{self}: {self.body.get('message', '')}"
        if self.body.get("errors"):
            text = f"{text} {self.body['errors']}"
        return text if len(text) <= _LONGEST_DETAIL else f"{text[: _LONGEST_DETAIL - 3]}..."


class Verdict(Enum):
    """What a reply says about one operation."""

    DONE = auto()
    """The effect has happened. Settle."""
    OVERTAKEN = auto()
    """It happened before, and its key has expired; or the service has closed the span. Settle and count."""
    OVER = auto()
    """The state of its instance is against it, and that tells: whether it is terminated, over, or neither."""
    AGAIN = auto()
    """Not known to be done. The same again, later."""
    TOKEN = auto()
    """Not allowed: a ping tells whether that is the token or the operation."""
    TOO_LARGE = auto()
    """Split it; a single one is rejected."""
    REJECTED = auto()
    """It will never be taken. Dead-letter."""
    CONFLICT = auto()
    """It meets something that is not ours. Dead-letter."""


_INVALID_ACTION: Final = "invalid_action"
"""The API's code for what the state of an instance or a span does not allow."""
CONFLICT_CODES: Final = frozenset(kind.rules.repeated_as for kind in OperationType) - {None}
"""The codes with 409 that say what is in the way; any other may mean that it is in flight elsewhere."""
_FINISHED: Final = frozenset({"complete", "failed", "cancelled"})
TOKEN_STATUSES: Final = frozenset({401, 403})
"""Statuses with which the API says that this token may not do this, if its error code comes with them."""
_NOT_FOR_US: Final = TOKEN_STATUSES | {404}
_REFUSALS: Final = frozenset({400, 404, 422})


def classify(
    reply: Reply, operation_type: OperationType, *, maybe_sent: bool, retry_on: Container[int] = ()
) -> Verdict:
    """Return what ``reply`` means for an operation that was sent alone.

    ``maybe_sent`` says whether an earlier sending may have had its effect; statuses in ``retry_on`` are tried
    again, whatever else they mean.
    """
    status = reply.status
    if status is None or status in retry_on:
        return Verdict.AGAIN
    if reply.succeeded:
        taken = reply.empty or (reply.body is not None and reply.body.get("status") != "error")
        return Verdict.DONE if taken else Verdict.AGAIN
    if reply.code is None:
        # A proxy's page, or nothing we know: not the API speaking.
        return Verdict.AGAIN
    if status == 409:
        return _conflict(reply.code, operation_type, maybe_sent=maybe_sent)
    if status in TOKEN_STATUSES:
        return Verdict.TOKEN
    if status == 413:
        return Verdict.TOO_LARGE
    return Verdict.REJECTED if status in _REFUSALS else Verdict.AGAIN


def _conflict(code: str, operation_type: OperationType, *, maybe_sent: bool) -> Verdict:
    rules = operation_type.rules
    if maybe_sent and rules.repeated_as == code:
        return Verdict.OVERTAKEN
    if rules.stage is Stage.END:
        return Verdict.OVER  # whatever the code: published clients take it for finished
    if code == _INVALID_ACTION and rules.stage is not Stage.REGISTRATION:
        # Termination closes the spans in flight; published clients take that for success, too.
        return Verdict.OVERTAKEN if rules.closes == SPAN else Verdict.OVER
    return Verdict.CONFLICT if code in CONFLICT_CODES else Verdict.AGAIN


def loses_instance(reply: Reply, operation: Operation) -> bool | None:
    """Whether a refusal says that no operation of the instance can be taken; ``None`` if a read has to tell.

    The instance is not known. Of a span that has a parent, and of a span's finish, "not found" may mean the
    span.
    """
    if reply.code != "not_found" or operation.type.rules.stage is Stage.REGISTRATION:
        return False
    return True if operation.needed_span_id is None else None


@dataclass(frozen=True, slots=True)
class Termination:
    """The service asks an instance's agent to stop. ``reason`` is its own, if it gave one."""

    reason: str | None


class Standing(Enum):
    """How it stands with an instance that was read."""

    OPEN = auto()
    """It is neither finished nor terminated."""
    FINISHED = auto()
    TERMINATED = auto()
    UNREADABLE = auto()
    """This token may not read it (a deployment's may read nothing), or there is nothing to read."""


def standing_of(reply: Reply) -> Standing | None:
    """Return what the reply to a read says of the instance; ``None`` if it says nothing: ask again."""
    if reply.status in _NOT_FOR_US and reply.code is not None:
        return Standing.UNREADABLE  # which says nothing of the token's writes
    status = _details(reply).get("status")
    if status is None:
        return None
    if status == "terminated":
        return Standing.TERMINATED
    return Standing.FINISHED if status in _FINISHED else Standing.OPEN


def termination_of(reply: Reply) -> Termination | None:
    """Return the termination of the instance that was read, if it is terminated."""
    details = _details(reply)
    if details.get("status") != "terminated":
        return None
    return Termination(_reason(details.get("termination_reason")))


def control_of(body: Mapping[str, object] | None) -> Termination | None:
    """Return what the reply to a span's write, alone or in bulk, asks of the agent, if that is to stop."""
    control = body.get("control") if body is not None else None
    if not isinstance(control, dict) or control.get("terminate") is not True:
        return None
    return Termination(_reason(control.get("reason")))


def _details(reply: Reply) -> dict[str, object]:
    details = reply.body.get("details") if reply.body is not None and reply.status == 200 else None
    return details if isinstance(details, dict) else {}


def _reason(given: object) -> str | None:
    return str(given)[:_LONGEST_REASON] if given else None


def classify_item(
    output: dict[str, object], operation_type: OperationType, *, maybe_sent: bool
) -> Verdict | None:
    """Return what a bulk item's output means, ``None`` where a request of its own has to tell.

    An output has a code and no HTTP status, and only two codes are known; whatever else an item met is
    asked again in a request of its own, whose status decides.
    """
    if output.get("status") == "success":
        return Verdict.DONE
    code = output.get("code")
    if isinstance(code, str) and code in CONFLICT_CODES:
        return _conflict(code, operation_type, maybe_sent=maybe_sent)
    return None
