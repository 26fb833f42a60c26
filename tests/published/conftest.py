"""What an integration runs against: an emulator, and a queue that remembers what was put."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.emulator import Emulator, running_emulator
from tests.support.recording import RecordingQueue


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    async with running_emulator(tmp_path) as emulator:
        yield emulator


@pytest.fixture
def queue() -> RecordingQueue:
    return RecordingQueue()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Return the path and the SDK header of every request to the API so far."""
    found: list[tuple[str, str | None]] = []
    send = httpx.AsyncClient.send

    async def noted(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.url.path.startswith("/api/"):
            found.append((request.url.path, request.headers.get("X-Prefactor-SDK")))
        return await send(client, request, **options)

    monkeypatch.setattr(httpx.AsyncClient, "send", noted)
    return found
