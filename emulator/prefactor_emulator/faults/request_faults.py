"""Faults that hit a request as a whole: its way here, or its reply's way back."""

import asyncio
from abc import abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field
from starlette.responses import Response
from starlette.types import Message, Scope
from typing_extensions import override

from prefactor_emulator.faults.fault import ErrorStatus, Exchange, Milliseconds, RequestFault, number, whole
from prefactor_emulator.http.connection import drop_connection
from prefactor_emulator.http.errors import refusal_response
from prefactor_emulator.http.paths import BULK_PATH
from prefactor_emulator.model import Refusal


class Latency(RequestFault):
    """`latency:ms=20,jitter_ms=5`: everything takes that much longer."""

    hits_reads: ClassVar = True
    ms: Milliseconds = 20
    jitter_ms: Milliseconds = 0

    @override
    async def act(self, exchange: Exchange) -> None:
        await asyncio.sleep((self.ms + exchange.dice.uniform(0, self.jitter_ms)) / 1000)
        await exchange.forward()


class AnswerFault(RequestFault):
    """A fault that answers in the API's place, before anything has happened."""

    @abstractmethod
    def answer(self) -> Response:
        """Build the answer."""

    @override
    async def act(self, exchange: Exchange) -> None:
        await self.answer()(exchange.scope, exchange.receive, exchange.send)


def _refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return refusal_response(Refusal(status, code, f"{message} (a fault asked for)", headers=headers))


class HtmlErrors(AnswerFault):
    """`html-errors:rate=0.1,status=502`: a page of a proxy, before anything has happened."""

    status: ErrorStatus = 502

    @override
    def answer(self) -> Response:
        page = f"<html><body><h1>{self.status}</h1><p>proxy</p></body></html>"
        return Response(page, self.status, {"content-type": "text/html"})


class Throttle(AnswerFault):
    """`throttle:rate=0.05,retry_after=1`: too many requests, before anything has happened."""

    retry_after: Annotated[int, whole(0, 86_400)] = 1

    @override
    def answer(self) -> Response:
        headers = {"retry-after": str(self.retry_after)}
        return _refusal(429, "rate_limited", "too many requests", headers)


class Error(AnswerFault):
    """`error:rate=0.1,status=500`: an error, before anything has happened."""

    status: ErrorStatus = 500

    @override
    def answer(self) -> Response:
        return _refusal(self.status, "internal_error", "the request failed")


class BadToken(AnswerFault):
    """`bad-token:status=401`: no token is accepted, by the ping neither."""

    hits_reads: ClassVar = True
    status: ErrorStatus = 401

    @override
    def answer(self) -> Response:
        return _refusal(self.status, "unauthorized", "the token is not accepted")


class NoBulk(AnswerFault):
    """`no-bulk:status=404`: a service that has no bulk requests."""

    status: ErrorStatus = 404

    @override
    def reaches(self, scope: Scope) -> bool:
        return bool(scope["path"] == BULK_PATH)

    @override
    def answer(self) -> Response:
        return _refusal(self.status, "not_found", "there is nothing here")


class Away(RequestFault):
    """`away:rate=0.1`: the connection breaks, before anything has happened."""

    hits_reads: ClassVar = True

    @override
    async def act(self, exchange: Exchange) -> None:
        await drop_connection(exchange.scope, exchange.receive)


class LostReply(RequestFault):
    """`lost-reply:rate=0.1,part=0.5`: it happens, but the reply does not arrive.

    Of the reply's body, `part` is sent before the connection closes; by default not even a
    status line is.
    """

    part: Annotated[float, number(0.99)] = 0

    @override
    async def act(self, exchange: Exchange) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await exchange.proceed(exchange.scope, exchange.receive, keep)
        if self.part and messages:  # there are none if the connection broke already
            body = b"".join(message.get("body", b"") for message in messages)
            sent = body[: int(len(body) * self.part)]
            await exchange.send(messages[0])
            await exchange.send({"type": "http.response.body", "body": sent, "more_body": True})
        await drop_connection(exchange.scope, exchange.receive, flush=bool(self.part))


class SlowBody(RequestFault):
    """`slow-body:rate=0.1,bytes=1,ms=10`: the reply's body comes in slices, with pauses between."""

    size: Annotated[int, whole(1, 10**9), Field(alias="bytes")] = 1
    ms: Milliseconds = 10

    @override
    async def act(self, exchange: Exchange) -> None:
        async def send_slowly(message: Message) -> None:
            body = message.pop("body", b"")
            for position in range(0, len(body), self.size):
                part = body[position : position + self.size]
                await exchange.send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(self.ms / 1000)
            await exchange.send(message)  # the reply's head, or what ends its body

        await exchange.proceed(exchange.scope, exchange.receive, send_slowly)


class ForgetKeys(RequestFault):
    """`forget-keys:rate=0.1`: before a write, all idempotency keys so far expire."""

    @override
    async def act(self, exchange: Exchange) -> None:
        with exchange.store.transaction():
            exchange.store.forget_keys()
        await exchange.forward()
