"""The API in memory: its rules in a simple model, and every way in which it can misbehave.

Nothing here shares code with the client: paths, names and rules are written down a second time, from the
API's description.
"""

import asyncio
import json
import random
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prefactor_core.api.replies import Reply

_PATHS = [
    (re.compile(r"^/api/v1/agent_instance/register$"), "agent_instances/register", None),
    (re.compile(r"^/api/v1/agent_instance/([^/]+)/start$"), "agent_instances/start", "agent_instance_id"),
    (re.compile(r"^/api/v1/agent_instance/([^/]+)/finish$"), "agent_instances/finish", "agent_instance_id"),
    (
        re.compile(r"^/api/v1/agent_instance/([^/]+)/record_quality$"),
        "agent_instances/record_quality",
        "agent_instance_id",
    ),
    (re.compile(r"^/api/v1/agent_spans$"), "agent_spans/create", None),
    (re.compile(r"^/api/v1/agent_spans/([^/]+)/finish$"), "agent_spans/finish", "agent_span_id"),
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One operation as it arrived."""

    action: str
    key: str
    target: str
    """The id of the instance or span that it acts on."""
    instance: str
    fields: str
    """All its other fields, as JSON in the order in which they came."""
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    at: float
    key: str
    action: str
    instance: str
    target: str


@dataclass(frozen=True, slots=True)
class Request:
    at: float
    path: str
    keys: tuple[str, ...]
    instances: frozenset[str]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        reply: What is answered instead.
        effect: How many of its operations have their effect all the same.
    """

    reply: Reply
    effect: int = 0


def error_body(code: str, message: str = "no") -> dict[str, object]:
    return {"status": "error", "code": code, "message": message}


def lost_reply() -> Fault:
    return Fault(Reply(None, failure="ReadError"), effect=1 << 30)


def lost_request() -> Fault:
    return Fault(Reply(None, failure="ReadTimeout"))


def refused_connection() -> Fault:
    return Fault(Reply(None, failure="ConnectError", reached=False))


def status(code: int, *, retry_after: float = 0.0, effect: int = 0) -> Fault:
    """The API itself answers with an error."""
    return Fault(Reply(code, error_body(f"code_{code}"), retry_after=retry_after), effect)


def page(code: int) -> Fault:
    """A proxy answers with a page of HTML."""
    return Fault(Reply(code))


@dataclass(slots=True)
class Chaos:
    """Random faults, as shares of all requests."""

    rng: random.Random
    lost_reply: float = 0.0
    error_500: float = 0.0
    throttle: float = 0.0
    refuse: float = 0.0
    page_502: float = 0.0
    half_done: float = 0.0

    def __call__(self, request: Request) -> Fault | None:
        dice = self.rng.random()
        some = self.rng.randint(0, len(request.keys))
        for share, fault in (
            (self.lost_reply, lost_reply()),
            (self.error_500, status(500)),
            (self.throttle, status(429, retry_after=float(self.rng.randint(0, 3)))),
            (self.refuse, refused_connection()),
            (self.page_502, page(502)),
            (self.half_done, status(503, effect=some)),
        ):
            if dice < share:
                return fault
            dice -= share
        return None


@dataclass(slots=True)
class FakeApi:
    """The API's rules, and how they are broken.

    Attributes:
        script: Faults of the next requests, one each; ``None`` lets one pass.
        faults: Asked for a fault at each request once the script is used up.
        unavailable: Nothing can be reached, pings included.
        token: What every request, pings included, is answered if the token is bad.
        ping_reply: What pings are answered instead.
        no_bulk: What bulk requests are answered where there is no bulk.
        read_replies: What the next reads are answered instead.
        unreadable: Reads are not for this token, as with a deployment's.
        controls: Instances whose agents are asked to stop in the replies to their spans.
        most_items: Bulk requests with more items are answered 413.
        reject: Names the status and code with which an operation is refused for good.
        poison: Operations that make the whole request end with a 500.
        item_code: Names the code of an item's error in bulk.
        ignore_keys: Idempotency is broken.
        latency: Seconds that a request takes; the effect comes first.
    """

    script: deque[Fault | None] = field(default_factory=deque)
    faults: Callable[[Request], Fault | None] | None = None
    unavailable: bool = False
    token: Reply | None = None
    ping_reply: Reply | None = None
    no_bulk: Reply | None = None
    read_replies: deque[Reply] = field(default_factory=deque)
    unreadable: bool = False
    controls: set[str] = field(default_factory=set)
    most_items: int | None = None
    reject: Callable[[Wanted], tuple[int, str] | None] = lambda _: None
    poison: Callable[[Wanted], bool] = lambda _: False
    item_code: Callable[[Wanted], str | None] = lambda _: None
    ignore_keys: bool = False
    latency: Callable[[], float] = lambda: 0.0

    effects: list[Effect] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    """Instances that had two requests under way at once."""
    sendings: dict[str, list[str]] = field(default_factory=dict)
    """By key: the fields of each sending."""
    instances: dict[str, str] = field(default_factory=dict)
    spans: dict[str, str] = field(default_factory=dict)
    span_instances: dict[str, str] = field(default_factory=dict)
    most_at_once: int = 0
    _replies: dict[str, tuple[str, dict[str, object]]] = field(default_factory=dict)
    _under_way: Counter[str] = field(default_factory=Counter)
    _at_once: int = 0

    # -- what the client calls

    async def ping(self) -> Reply:
        self.pings.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.latency())
        if self.unavailable:
            return refused_connection().reply
        return self.token or self.ping_reply or Reply(200, {"status": "success", "details": {}})

    async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
        del sdk_header
        wanted = self._read(path, body)
        request = Request(
            asyncio.get_running_loop().time(),
            path,
            tuple(one.key for one in wanted),
            frozenset(one.instance for one in wanted),
        )
        self.requests.append(request)
        for one in wanted:
            self.sendings.setdefault(one.key, []).append(f"{one.action} {one.target} {one.fields}")
        self._enter(request)
        try:
            reply = self._answer(request, wanted)
            await asyncio.sleep(self.latency())
        finally:
            self._leave(request)
        return reply

    async def get(self, path: str) -> Reply:
        await asyncio.sleep(self.latency())
        self.reads.append(path)
        if self.unavailable:
            return refused_connection().reply
        if self.token is not None or self.read_replies:
            return self.token or self.read_replies.popleft()
        if self.unreadable:
            return Reply(401, error_body("unauthorized"))
        state = self.instances.get(path.removeprefix("/api/v1/agent_instance/"))
        if state is None:
            return Reply(404, error_body("not_found"))
        shown = "complete" if state == "over" else state
        return Reply(200, {"status": "success", "details": {"status": shown}})

    # -- what tests call

    def forget_keys(self) -> None:
        """The time for which keys are remembered is over."""
        self._replies.clear()

    def terminate(self, instance: str) -> None:
        """The service ends an instance, and closes its spans in flight."""
        self.instances[instance] = "terminated"
        for span, owner in self.span_instances.items():
            if owner == instance:
                self.spans[span] = "over"

    def done(self, instance: str | None = None) -> list[str]:
        """The keys of what has happened, in order."""
        return [one.key for one in self.effects if instance in (None, one.instance)]

    def sent(self, key: str) -> int:
        return len(self.sendings.get(key, []))

    @property
    def bulk_requests(self) -> list[Request]:
        return [request for request in self.requests if request.path.endswith("/bulk")]

    @property
    def single_requests(self) -> list[Request]:
        return [request for request in self.requests if not request.path.endswith("/bulk")]

    # -- inside

    def _enter(self, request: Request) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.overlaps += [one for one in request.instances if self._under_way[one]]
        self._under_way.update(request.instances)

    def _leave(self, request: Request) -> None:
        self._at_once -= 1
        self._under_way.subtract(request.instances)

    def _answer(self, request: Request, wanted: list[Wanted]) -> Reply:
        if self.unavailable:
            return refused_connection().reply
        if self.token is not None:
            return self.token
        bulk = request.path.endswith("/bulk")
        if bulk and self.no_bulk is not None:
            return self.no_bulk
        if bulk and self.most_items is not None and len(wanted) > self.most_items:
            return Reply(413, error_body("too_large"))
        fault = self._fault(request)
        if fault is not None:
            for one in wanted[: fault.effect]:
                if self._apply(one)[0] >= 400:
                    break
            return fault.reply
        return self._bulk(wanted) if bulk else self._single(wanted[0])

    def _fault(self, request: Request) -> Fault | None:
        if self.script:
            return self.script.popleft()
        return None if self.faults is None else self.faults(request)

    def _single(self, one: Wanted) -> Reply:
        if self.poison(one):
            return Reply(500, error_body("internal_error"))
        code, body = self._apply(one)
        return Reply(code, body)

    def _bulk(self, wanted: list[Wanted]) -> Reply:
        assert len({one.key for one in wanted}) == len(wanted), "a key twice in one bulk request"
        outputs: dict[str, object] = {}
        for one in wanted:
            if self.poison(one):
                return Reply(500, error_body("internal_error"))
            code = self.item_code(one)
            reply = (400, error_body(code)) if code is not None else self._apply(one)
            outputs[one.key] = reply[1]
            if reply[0] >= 400:
                break
        return Reply(200, {"status": "success", "outputs": outputs})

    def _apply(self, one: Wanted) -> tuple[int, dict[str, object]]:
        content = f"{one.action} {one.target} {one.fields}"
        if not self.ignore_keys and one.key in self._replies:
            before, reply = self._replies[one.key]
            return (200, reply) if before == content else (422, error_body("idempotency_mismatch"))
        refused = self.reject(one) or self._refusal(one)
        if refused is not None:
            return refused[0], error_body(refused[1])
        self._change(one)
        self.effects.append(
            Effect(asyncio.get_running_loop().time(), one.key, one.action, one.instance, one.target)
        )
        done: dict[str, object] = {"status": "success", "details": {"id": one.target}}
        if one.instance in self.controls and one.action.startswith("agent_spans/"):
            done["control"] = {"terminate": True, "reason": None}
        self._replies[one.key] = (content, done)
        return 200, done

    def _refusal(self, one: Wanted) -> tuple[int, str] | None:
        if one.action == "agent_spans/finish":
            if one.target not in self.spans:
                return 404, "not_found"
            return None if self.spans[one.target] == "active" else (409, "invalid_action")
        state = self.instances.get(one.instance)
        if one.action == "agent_instances/register":
            return None if state is None else (409, "conflict")
        if state is None:
            return 404, "not_found"
        if one.action == "agent_spans/create" and one.target in self.spans:
            return 409, "conflict"
        needed = {"agent_instances/start": "pending", "agent_instances/record_quality": state}
        if state != needed.get(one.action, "active"):
            return 409, "invalid_action"
        return self._span_refusal(one) if one.action == "agent_spans/create" else None

    def _span_refusal(self, one: Wanted) -> tuple[int, str] | None:
        return (404, "not_found") if one.parent is not None and one.parent not in self.spans else None

    def _change(self, one: Wanted) -> None:
        if one.action == "agent_instances/register":
            self.instances[one.target] = "pending"
        elif one.action == "agent_instances/start":
            self.instances[one.target] = "active"
        elif one.action == "agent_instances/finish":
            self.instances[one.target] = "over"
        elif one.action == "agent_spans/create":
            self.spans[one.target] = "active"
            self.span_instances[one.target] = one.instance
        elif one.action == "agent_spans/finish":
            self.spans[one.target] = "over"

    def _read(self, path: str, body: bytes) -> list[Wanted]:
        parsed = json.loads(body)
        if path == "/api/v1/bulk":
            assert set(parsed) == {"items"}
            return [self._read_one(item.pop("_type"), item) for item in parsed["items"]]
        for pattern, action, address in _PATHS:
            match = pattern.match(path)
            if match is not None:
                if address is not None:
                    parsed[address] = match.group(1)
                return [self._read_one(action, parsed)]
        raise AssertionError(f"there is no {path}")

    def _read_one(self, action: str, item: dict[str, Any]) -> Wanted:
        key = item.pop("idempotency_key")
        assert 8 <= len(key) <= 64
        parent = None
        if action == "agent_spans/create":
            details = item["details"]
            target, instance, parent = (
                details["id"],
                details["agent_instance_id"],
                details.get("parent_span_id"),
            )
        elif action == "agent_spans/finish":
            target = item.pop("agent_span_id")
            # The request does not say whose span it is; ids here begin with their instance's.
            instance = self.span_instances.get(target, target.partition("-")[0])
        elif action == "agent_instances/register":
            target = instance = item["id"]
        else:
            target = instance = item.pop("agent_instance_id")
        return Wanted(action, key, target, instance, json.dumps(item), parent)
