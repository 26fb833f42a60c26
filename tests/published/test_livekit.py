"""The published prefactor-livekit, unmodified, on this SDK, as far as it goes without LiveKit's service.

The session is LiveKit's own, in text mode: what it emits is real. Hearing and speaking need a room and
models, so the events of speech are made by hand.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import distribution, version
from pathlib import Path

import prefactor_livekit
import pytest
from livekit.agents import (
    CloseEvent,
    CloseReason,
    ErrorEvent,
    RunResult,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
)
from livekit.rtc import EventEmitter
from prefactor_livekit import PrefactorLiveKitSession

from prefactor_core import PrefactorTelemetryFailureError
from tests.published.spoken import ANSWER, ShopAgent, calls, says, session_with
from tests.published.story import finished_instance, outline
from tests.support.emulator import Emulator, running_emulator
from tests.support.recording import RecordingQueue


@asynccontextmanager
async def recorded(url: str, queue: RecordingQueue) -> AsyncIterator[PrefactorLiveKitSession]:
    wrapper = PrefactorLiveKitSession.from_config(url, "test", agent_name="Shop")
    wrapper._client._queue = queue
    try:
        yield wrapper
    finally:
        async with asyncio.timeout(180):
            await wrapper.close()


def speak(session: "EventEmitter[str]", words: str) -> None:
    """Emit what a session does when its user begins to speak, is heard in part, and then in full."""
    session.emit("user_state_changed", UserStateChangedEvent(old_state="listening", new_state="speaking"))
    session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript="What", is_final=False))
    session.emit("user_input_transcribed", UserInputTranscribedEvent(transcript=words, is_final=True))


def test_the_package_is_the_published_one() -> None:
    assert distribution("prefactor-livekit").read_text("direct_url.json") is None, "from the index"
    assert version("prefactor-livekit") == prefactor_livekit.__version__


async def test_a_real_session_with_a_tool(
    emulator: Emulator, queue: RecordingQueue, sent: list[tuple[str, str | None]]
) -> None:
    both = f"prefactor-livekit@{version('prefactor-livekit')} prefactor-core@{version('prefactor-core')}"
    session = session_with(calls("price_of", '{"article": "tea"}'), says(ANSWER))
    async with recorded(emulator.url, queue) as wrapper, session:
        await wrapper.start(session, ShopAgent())
        async with asyncio.timeout(180):
            result: RunResult[None] = await session.run(user_input="What is tea?")
        result.expect.contains_message(role="assistant")
    assert {header for _, header in sent} == {both}
    instance = await finished_instance(emulator, queue)
    assert instance["status"] == "complete"
    assert outline(instance["spans"]) == [
        "livekit:session complete",
        "  livekit:assistant_turn complete",
        "    livekit:llm complete",
        "    livekit:llm complete",
        "    livekit:tool complete",
    ]
    spans = {span["schema_name"]: span for span in instance["spans"]}
    assert spans["livekit:tool"]["payload"]["inputs"] == {"article": "tea"}
    assert spans["livekit:tool"]["result_payload"]["outputs"] == {"output": "3.5", "name": "price_of"}
    said = spans["livekit:assistant_turn"]["result_payload"]["outputs"]["message"]
    assert (said["role"], said["content"]) == ("assistant", [ANSWER])
    (used,) = spans["livekit:session"]["result_payload"]["usage"]["model_usage"]
    assert (used["input_tokens"], used["output_tokens"]) == (14, 10)


async def test_events_of_speech(emulator: Emulator, queue: RecordingQueue) -> None:
    async with recorded(emulator.url, queue) as wrapper:
        session: EventEmitter[str] = EventEmitter()
        await wrapper.attach(session)
        for number in range(2):
            speak(session, f"What is tea {number}?")
        await asyncio.to_thread(speak, session, "What is tea 2?")
        session.emit("error", ErrorEvent(error=RuntimeError("no microphone"), source=None))
        session.emit("close", CloseEvent(reason=CloseReason.USER_INITIATED))
    instance = await finished_instance(emulator, queue)
    assert instance["status"] == "complete"
    assert outline(instance["spans"]) == [
        "livekit:session complete",
        "  livekit:error failed",
        "  livekit:user_turn complete",
        "  livekit:user_turn complete",
        "  livekit:user_turn complete",
    ]
    turns = [span for span in instance["spans"] if span["schema_name"] == "livekit:user_turn"]
    assert [turn["result_payload"]["transcript"] for turn in turns] == [
        f"What is tea {number}?" for number in range(3)
    ]
    whole = next(span for span in instance["spans"] if span["parent_span_id"] is None)["result_payload"]
    assert whole["conversation"]["user_messages"] == 3
    assert whole["metadata"] == {"close_reason": "user_initiated"}


async def test_a_refused_token_is_raised_when_the_session_is_closed(tmp_path: Path) -> None:
    async with running_emulator(tmp_path, "--fault", "bad-token") as emulator:
        wrapper = PrefactorLiveKitSession.from_config(emulator.url, "test")
        client = wrapper._client
        session: EventEmitter[str] = EventEmitter()
        await wrapper.attach(session)
        with pytest.raises(PrefactorTelemetryFailureError):
            await client.flush(30)
        speak(session, "Is anybody there?")
        try:
            with pytest.raises(PrefactorTelemetryFailureError):
                async with asyncio.timeout(180):
                    await wrapper.close()
            assert not client._initialized
        finally:
            with suppress(PrefactorTelemetryFailureError):
                await client.close()
