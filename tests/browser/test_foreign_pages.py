"""A page of another site, in the browser of somebody who runs an emulator: it learns and changes nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import DEADLINE
from tests.emulator.driver import Api, Served

pytestmark = pytest.mark.asyncio(loop_scope="session")


class _Site(BaseHTTPRequestHandler):
    """Has one page, at every address."""

    def do_GET(self) -> None:
        content = b"<!doctype html><title>A page</title><iframe name=frame></iframe>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of another site, which its name leads to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest_asyncio.fixture(loop_scope="session", params=["http://evil.example:{}", "http://127.0.0.1:{}"])
async def foreign(request: pytest.FixtureRequest, browser: Browser, port: int) -> Any:
    """A page of that site: by a name, and as a neighbour of the emulator on the same machine."""
    context = await browser.new_context()
    context.set_default_timeout(DEADLINE)
    page = await context.new_page()
    await page.goto(request.param.format(port))
    yield page
    await context.close()


FETCH = """async ([address, options]) => {
    try {
        const reply = await fetch(address, options);
        return [reply.type, reply.status, await reply.text()];
    } catch (error) {
        return [error.name];
    }
}"""
SUBMIT = """([address, body]) => {
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: address, target: "frame", enctype: "text/plain" });
    form.append(Object.assign(document.createElement("input"), { name: body, value: "" }));
    document.body.append(form);
    form.submit();
}"""


async def test_it_reads_nothing(foreign: Page, api: Api, emulator: Served) -> None:
    instance_id = api.instance()
    for path in (
        "emulator/instances",
        f"emulator/instances/{instance_id}",
        "emulator/effects",
        "",
        "openapi.json",
    ):
        address = f"{emulator.url}/{path}"
        assert await foreign.evaluate(FETCH, [address, {}]) == ["TypeError"]
        opaque = await foreign.evaluate(FETCH, [address, {"mode": "no-cors"}])
        assert opaque in (["opaque", 0, ""], ["TypeError"])


async def test_it_changes_nothing(foreign: Page, api: Api, emulator: Served) -> None:
    instance_id = api.instance()
    terminate = f"{emulator.url}/emulator/instances/{instance_id}/terminate"
    faults = f"{emulator.url}/emulator/faults"
    for address, body in ((terminate, "{}"), (faults, '{"faults": ["error:status=503"]}')):
        for kind in ("text/plain", "application/json"):
            for mode in ("cors", "no-cors"):
                options = {"method": "POST", "mode": mode, "body": body, "headers": {"Content-Type": kind}}
                reply = await foreign.evaluate(FETCH, [address, options])
                assert reply in (["opaque", 0, ""], ["TypeError"])
        async with foreign.expect_response(address) as answered:
            await foreign.evaluate(SUBMIT, [address, body])
        assert (await answered.value).status == 403
    assert await foreign.evaluate(FETCH, [faults, {"method": "DELETE"}]) == ["TypeError"]
    assert api.look("faults")["faults"] == []
    assert api.look(f"instances/{instance_id}")["status"] == "active"


async def test_a_name_of_its_own_that_leads_to_the_emulator_does_not_help_it(
    browser: Browser, api: Api, emulator: Served
) -> None:
    instance_id = api.instance()
    port = emulator.url.rsplit(":", 1)[1]
    context = await browser.new_context(base_url=f"http://evil.example:{port}")
    page = await context.new_page()
    reply = await page.goto(f"/instances/{instance_id}")
    assert reply is not None
    assert reply.status == 403
    await expect(page.locator("body")).not_to_contain_text(instance_id)
    options = {"method": "POST", "body": "{}"}
    said = await page.evaluate(FETCH, [f"/emulator/instances/{instance_id}/terminate", options])
    assert said[:2] == ["basic", 403]
    assert (await page.evaluate(FETCH, ["/emulator/instances", {}]))[1] == 403
    await context.close()
    assert api.look(f"instances/{instance_id}")["status"] == "active"
