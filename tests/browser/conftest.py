"""A real browser, and an emulator whose pages it opens."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.emulator.driver import Api, Served
from tests.support.brokers.sources import CHROMIUM, REQUIRE, required
from tests.support.emulator import mistakes_of

DEADLINE = 120_000.0  # milliseconds: generous, for a machine that is busy
_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]
_LACKING = f"no {CHROMIUM} to test with: install it (apt-get install {CHROMIUM})"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, which serves all tests of the session."""
    program = shutil.which(CHROMIUM)
    if program is None and CHROMIUM in required(os.environ):
        pytest.fail(f"{_LACKING}; {REQUIRE} asks for it", pytrace=False)
    if program is None:
        pytest.skip(_LACKING)
    expect.set_options(timeout=DEADLINE)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=_ARGUMENTS, timeout=DEADLINE)
        yield started
        await started.close()


@pytest.fixture(scope="session")
def emulator() -> Iterator[Served]:
    """An emulator whose pages are looked at."""
    served = Served()
    yield served
    assert mistakes_of(served.end()) == []


@pytest.fixture
def api(emulator: Served) -> Iterator[Api]:
    with emulator.api() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser, emulator: Served) -> AsyncIterator[BrowserContext]:
    """A browser without a past. It asks nobody but the emulator, and nothing goes wrong in it."""
    fresh = await browser.new_context(base_url=emulator.url, color_scheme="light")
    fresh.set_default_timeout(DEADLINE)
    asked: list[str] = []
    wrong: list[str] = []
    fresh.on("request", lambda request: asked.append(urlsplit(request.url).netloc))
    fresh.on("weberror", lambda error: wrong.append(str(error.error)))
    fresh.on("dialog", lambda dialog: wrong.append(dialog.message))
    yield fresh
    await fresh.close()
    assert set(asked) <= {urlsplit(emulator.url).netloc}
    assert wrong == []


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()
