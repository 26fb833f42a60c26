"""Faults that hit a request as a whole: its way here, or its reply's way back."""

import asyncio
from dataclasses import dataclass
from typing import ClassVar, Self

from starlette.types import Message
from typing_extensions import override

from prefactor_emulator.faults.fault import Exchange, Reach, RequestFault
from prefactor_emulator.faults.options import Options
from prefactor_emulator.http.connection import drop_connection
from prefactor_emulator.model import JsonObject


def _error(code: str, message: str) -> JsonObject:
    return {"status": "error", "code": code, "message": f"{message} (a fault asked for)"}


@dataclass(frozen=True)
class Latency(RequestFault):
    """`latency:ms=20,jitter_ms=5`: everything takes that much longer."""

    name: ClassVar[str] = "latency"
    reach: ClassVar[Reach] = Reach.ALL
    ms: float
    jitter_ms: float

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls(options.number("ms", 20), options.number("jitter_ms", 0))

    @override
    async def act(self, exchange: Exchange) -> None:
        await asyncio.sleep((self.ms + exchange.dice.uniform(0, self.jitter_ms)) / 1000)
        await exchange.forward()


@dataclass(frozen=True)
class Error(RequestFault):
    """`error:rate=0.1,status=500`: an error, before anything has happened."""

    name: ClassVar[str] = "error"
    status: int

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls(options.status(500))

    @override
    async def act(self, exchange: Exchange) -> None:
        await exchange.reply(self.status, _error("internal_error", "the request failed"))


@dataclass(frozen=True)
class HtmlErrors(RequestFault):
    """`html-errors:rate=0.1,status=502`: a page of a proxy, before anything has happened."""

    name: ClassVar[str] = "html-errors"
    status: int

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls(options.status(502))

    @override
    async def act(self, exchange: Exchange) -> None:
        page = f"<html><body><h1>{self.status}</h1><p>proxy</p></body></html>".encode()
        await exchange.reply(self.status, page, {"content-type": "text/html"})


@dataclass(frozen=True)
class Throttle(RequestFault):
    """`throttle:rate=0.05,retry_after=1`: too many requests, before anything has happened."""

    name: ClassVar[str] = "throttle"
    retry_after: int

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        # The header takes whole seconds only.
        return cls(int(options.number("retry_after", 1, most=86_400)))

    @override
    async def act(self, exchange: Exchange) -> None:
        headers = {"retry-after": str(self.retry_after)}
        await exchange.reply(429, _error("rate_limited", "too many requests"), headers)


@dataclass(frozen=True)
class BadToken(RequestFault):
    """`bad-token:status=401`: no token is accepted, by the ping neither."""

    name: ClassVar[str] = "bad-token"
    reach: ClassVar[Reach] = Reach.ALL
    status: int

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls(options.status(401))

    @override
    async def act(self, exchange: Exchange) -> None:
        await exchange.reply(self.status, _error("unauthorized", "the token is not accepted"))


@dataclass(frozen=True)
class NoBulk(RequestFault):
    """`no-bulk:status=404`: a service that has no bulk requests."""

    name: ClassVar[str] = "no-bulk"
    reach: ClassVar[Reach] = Reach.BULK
    status: int

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls(options.status(404))

    @override
    async def act(self, exchange: Exchange) -> None:
        await exchange.reply(self.status, _error("not_found", "there is nothing here"))


@dataclass(frozen=True)
class Away(RequestFault):
    """`away:rate=0.1`: the connection breaks, before anything has happened."""

    name: ClassVar[str] = "away"
    reach: ClassVar[Reach] = Reach.ALL

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls()

    @override
    async def act(self, exchange: Exchange) -> None:
        await drop_connection(exchange.scope, exchange.receive)


@dataclass(frozen=True)
class LostReply(RequestFault):
    """`lost-reply:rate=0.1,part=0.5`: it happens, but the reply does not arrive.

    Of the reply's body, `part` is sent before the connection closes; by default not even a
    status line is.
    """

    name: ClassVar[str] = "lost-reply"
    part: float

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls(options.number("part", 0, most=0.99))

    @override
    async def act(self, exchange: Exchange) -> None:
        start, body = await _reply_to(exchange)
        if self.part:
            await exchange.send(start)
            sent = body[: int(len(body) * self.part)]
            await exchange.send({"type": "http.response.body", "body": sent, "more_body": True})
        await drop_connection(exchange.scope, exchange.receive, flush=bool(self.part))


@dataclass(frozen=True)
class SlowBody(RequestFault):
    """`slow-body:rate=0.1,bytes=1,ms=10`: the reply's body comes in slices, with pauses between."""

    name: ClassVar[str] = "slow-body"
    size: int
    ms: float

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls(options.whole("bytes", 1, 1, 10**9), options.number("ms", 10))

    @override
    async def act(self, exchange: Exchange) -> None:
        start, body = await _reply_to(exchange)
        await exchange.send(start)
        for position in range(0, len(body), self.size):
            part = body[position : position + self.size]
            await exchange.send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(self.ms / 1000)
        await exchange.send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True)
class ForgetKeys(RequestFault):
    """`forget-keys:rate=0.1`: before a write, all idempotency keys so far expire."""

    name: ClassVar[str] = "forget-keys"

    @override
    @classmethod
    def from_options(cls, options: Options) -> Self:
        return cls()

    @override
    async def act(self, exchange: Exchange) -> None:
        exchange.service.forget_keys()
        await exchange.forward()


async def _reply_to(exchange: Exchange) -> tuple[Message, bytes]:
    """Let the request take effect, and keep its reply back."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await exchange.proceed(exchange.scope, exchange.receive, keep)
    return messages[0], b"".join(message.get("body", b"") for message in messages[1:])
