"""The emulator's pages in a real browser: live, searched, walked by keys, dark, and with much to show."""

import re

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject
from tests.emulator.driver import (
    CREATE,
    FINISH_SPAN,
    NOW,
    OVER,
    QUALITY,
    Api,
    Served,
    bulk_item,
    registration,
    span,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

NASTY = '<img src=nowhere onerror="window.hacked = 1; alert()"></script><script>window.hacked = 1</script>'


def of_agent(name: str, schema_name: str = "ask", **schema: object) -> JsonObject:
    """Make a registration of an agent of that name, with one schema, whose template is the question."""
    kind = {"name": schema_name, "template": "{{ question }}", "params_schema": {"required": ["question"]}}
    version = {"name": name, "external_identifier": name}
    schemas = {"external_identifier": name, "span_type_schemas": [kind | schema]}
    return registration(agent_id=name, agent_version=version, agent_schema_version=schemas)


def ask(api: Api, instance_id: str, question: str, **changes: object) -> str:
    return api.span(instance_id, schema_name="ask", payload={"question": question}, **changes)


def row(page: Page, span_id: str) -> Locator:
    return page.locator(f"#s-{span_id} > summary")


def body(page: Page, span_id: str) -> Locator:
    return page.locator(f"#s-{span_id} > .body")


async def test_the_list_leads_to_runs_and_shows_new_ones_by_itself(page: Page, api: Api) -> None:
    name = f"Clerk {new_id()}"
    first = api.instance(fields=of_agent(name))
    await page.goto("/")
    await expect(page.locator(f"#i-{first}")).to_contain_text(name)
    await page.evaluate("window.stayed = true")
    second = api.instance(fields=of_agent(name))
    await expect(page.locator("#rows tr").first).to_have_id(f"i-{second}")
    api.span(second, status="failed", schema_name="undeclared")
    await expect(page.locator(f"#i-{second}")).to_contain_text("1 failed")
    await expect(page.locator(f"#i-{second}")).to_contain_text("1 flagged")
    await expect(page.locator("#live")).to_have_text("live")
    assert await page.evaluate("window.stayed"), "the page is the same, and not loaded again"
    await page.get_by_role("link", name=second).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(name)


async def test_an_opened_span_shows_what_it_carries(page: Page, api: Api) -> None:
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}"))
    span_id = ask(api, instance_id, "why?")
    flagged = api.span(instance_id, schema_name="ask", payload={"no": "question"})
    await page.goto(f"/instances/{instance_id}")
    await row(page, span_id).click()
    await expect(row(page, span_id)).to_have_attribute("aria-expanded", "true")
    await expect(body(page, span_id)).to_contain_text('"question": "why?"')
    api.do(FINISH_SPAN, span_id, OVER | {"result_payload": {"answer": "because"}})
    await expect(body(page, span_id)).to_contain_text('"answer": "because"')
    await expect(row(page, span_id)).to_have_attribute("aria-expanded", "true")
    await expect(row(page, flagged).locator(".flag")).to_be_visible()
    await expect(row(page, span_id).locator(".flag")).to_have_count(0)
    await row(page, flagged).click()
    await expect(body(page, flagged)).to_contain_text("Does not fit its schema")
    await row(page, span_id).click()
    await expect(body(page, span_id)).to_be_hidden()


async def test_what_is_sensitive_is_covered_until_it_is_asked_for(page: Page, api: Api) -> None:
    marked = {"$sensitive": "email", "value": "jo@example.org", "labels": ["personal"]}
    payload = {"question": "who?", "customer": marked}
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}"))
    span_id = api.span(instance_id, schema_name="ask", payload=payload, sensitive_encoding=True)
    await page.goto(f"/instances/{instance_id}")
    await row(page, span_id).click()
    cover = body(page, span_id).get_by_text("email, personal")
    await expect(cover).to_be_visible()
    await expect(body(page, span_id).get_by_text("jo@example.org")).to_be_hidden()
    await cover.click()
    await expect(body(page, span_id).get_by_text("jo@example.org")).to_be_visible()
    await cover.click()
    await expect(body(page, span_id).get_by_text("jo@example.org")).to_be_hidden()


async def test_the_list_is_searched_while_words_are_typed(page: Page, api: Api) -> None:
    word = new_id()
    wanted = api.instance(fields=of_agent(f"The {word} Clerk"))
    other = api.instance(fields=of_agent(f"Other {new_id()}"))
    span_id = ask(api, other, "where?")
    await page.goto("/")
    field = page.get_by_role("searchbox")
    await field.press_sequentially(f"{word} c")
    await expect(page.locator("#rows tr")).to_have_count(1)
    await expect(page.locator(f"#i-{wanted}")).to_be_visible()
    await expect(field).to_be_focused()
    assert f"?q={word}" in page.url
    later = api.instance(fields=of_agent(f"The {word} Clerk"))
    await expect(page.locator("#rows tr").first).to_have_id(f"i-{later}")
    await expect(field).to_have_value(f"{word} c")
    await field.fill(f"not {word}")
    await expect(page.locator("#empty")).to_contain_text(f"Nothing fits “not {word}”.")
    await field.fill(span_id)
    await expect(page).to_have_url(re.compile(rf"/instances/{other}\?span={span_id}#s-{span_id}$"))
    await expect(body(page, span_id)).to_contain_text('"question": "where?"')


async def test_a_run_is_searched_while_words_are_typed(page: Page, api: Api) -> None:
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}"))
    top = ask(api, instance_id, "which way?")
    wanted = ask(api, instance_id, "Where to?", parent_span_id=top)
    other = ask(api, instance_id, "why?")
    await page.goto(f"/instances/{instance_id}")
    field = page.get_by_role("searchbox")
    await field.press_sequentially("where")
    await expect(page.locator("#found")).to_contain_text("1 of 3 spans fit “where”.")
    await expect(row(page, wanted)).to_be_visible()
    await expect(row(page, top)).to_be_visible()
    await expect(row(page, other)).to_have_count(0)
    later = ask(api, instance_id, "where from?")
    await expect(row(page, later)).to_be_visible()
    await expect(field).to_be_focused()
    await field.fill("")
    await expect(row(page, other)).to_be_visible()
    await expect(page.locator("#found")).to_have_count(0)


async def test_pages_work_without_scripts(browser: Browser, api: Api, emulator: Served) -> None:
    word = new_id()
    instance_id = api.instance(fields=of_agent(f"The {word} Clerk"))
    span_id = ask(api, instance_id, "why?")
    context = await browser.new_context(base_url=emulator.url, java_script_enabled=False)
    page = await context.new_page()
    await page.goto("/?status=active")
    await page.get_by_role("searchbox").fill(word)
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows tr")).to_have_count(1)
    assert "status=active" in page.url
    await page.get_by_role("link", name=instance_id).click()
    await row(page, span_id).click()
    await page.get_by_role("link", name="Payloads").click()
    await expect(page.locator("article")).to_contain_text('"question": "why?"')
    await page.get_by_role("link", name="The run").click()
    await expect(row(page, span_id)).to_be_visible()
    await context.close()


async def test_what_has_not_changed_stays_as_it_is(page: Page, api: Api) -> None:
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}"))
    span_id = ask(api, instance_id, "\n".join(f"line {number}" for number in range(500)))
    await page.goto(f"/instances/{instance_id}")
    await page.locator("#registration > summary").click()
    await row(page, span_id).click()
    await expect(body(page, span_id)).to_contain_text("line 499")
    state = """() => {
        const box = document.querySelector("#spans .json");
        return [window.node === document.querySelector("#spans > details"), box.scrollTop,
            getSelection().toString(), document.querySelector("#registration").open, scrollY];
    }"""
    await page.evaluate("""() => {
        window.node = document.querySelector("#spans > details");
        const box = document.querySelector("#spans .json");
        box.scrollTop = 40;
        getSelection().selectAllChildren(document.querySelector("#spans .text"));
        scrollTo(0, 120);
    }""")
    before = await page.evaluate(state)
    assert before[0]
    assert before[1] == 40
    for number in range(3):
        await expect(row(page, ask(api, instance_id, f"question {number}"))).to_have_count(1)
    assert await page.evaluate(state) == before


async def test_nothing_from_outside_is_executed(page: Page, api: Api) -> None:
    fields = of_agent(NASTY, NASTY, title=NASTY, description=NASTY)
    instance_id = api.instance(fields=fields | {"external_identifier": f"{NASTY}{new_id()}"})
    payload = {"question": NASTY, NASTY: NASTY}
    span_id = api.span(instance_id, schema_name=NASTY, payload=payload, result_payload={NASTY: NASTY})
    api.span(instance_id, schema_name=f"undeclared {NASTY}", payload={NASTY: NASTY})
    api.do(QUALITY, instance_id, {"name": NASTY, "payload": {NASTY: NASTY}})
    api.terminate(instance_id, reason=NASTY)
    for path in ("/", f"/instances/{instance_id}", f"/spans/{span_id}"):
        await page.goto(path)
        await expect(page.locator("main")).to_contain_text(NASTY)
        await expect(page.locator("img")).to_have_count(0)
        assert await page.evaluate("window.hacked") is None
    await page.goto(f"/instances/{instance_id}")
    await row(page, span_id).click()
    await expect(body(page, span_id)).to_contain_text("window.hacked")
    await page.get_by_role("searchbox").fill(NASTY)
    await expect(page.locator("#found")).to_contain_text(NASTY)
    api.span(api.instance(fields=fields), schema_name=NASTY)
    await expect(page.locator("#live")).to_have_text("live")
    assert await page.evaluate("window.hacked") is None
    await expect(page.locator("img")).to_have_count(0)


CONTRASTS = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => numbers(colour).slice(0, 3).map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
        const own = getComputedStyle(element).backgroundColor;
        return (numbers(own)[3] ?? 1) > 0 ? own : ground(element.parentElement);
    };
    const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = {};
    while (words.nextNode()) {
        const element = words.currentNode.parentElement;
        if (!words.currentNode.data.trim() || !element.checkVisibility()) continue;
        const pair = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => a - b);
        const name = `${element.tagName} ${element.className}`;
        found[name] = Math.min(found[name] ?? 99, (pair[1] + 0.05) / (pair[0] + 0.05));
    }
    return found;
}"""


async def ground(page: Page) -> list[int]:
    colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read(page: Page, api: Api, scheme: str) -> None:
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}"))
    spans = [
        ask(api, instance_id, status, status=status) for status in ("pending", "active", "complete", "failed")
    ]
    api.do(FINISH_SPAN, spans[0], OVER | {"status": "cancelled"})
    ask(api, instance_id, "pending", status="pending")
    bad = api.span(instance_id, schema_name="bad")
    api.do(QUALITY, instance_id, {"name": "odd", "payload": {}})
    api.terminate(instance_id, reason="enough")
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for path in ("/", f"/instances/{instance_id}?span={bad}", f"/instances/{instance_id}?q=active"):
        await page.goto(path)
        contrasts: dict[str, float] = await page.evaluate(CONTRASTS)
        assert len(contrasts) > 10
        assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}


async def test_light_and_dark_follow_the_system_or_what_was_chosen(
    page: Page, context: BrowserContext
) -> None:
    await page.goto("/")
    light = await ground(page)
    await page.emulate_media(color_scheme="dark")
    dark = await ground(page)
    assert min(light) > 200
    assert max(dark) < 60
    button = page.get_by_role("button", name="Light or dark")
    await button.click()
    assert await ground(page) == light
    await page.reload()
    assert await ground(page) == light, "what was chosen is remembered"
    other = await context.new_page()
    await other.emulate_media(color_scheme="dark")
    await other.goto("/")
    assert await ground(other) == light
    await button.click()
    assert await ground(page) == dark
    await page.emulate_media(color_scheme="light")
    assert await ground(page) == light, "the system is followed again"
    await button.click()
    assert await ground(page) == dark


async def test_the_list_is_walked_by_keys(page: Page, api: Api) -> None:
    word = new_id()
    ids = [api.instance(fields=of_agent(f"{word} Clerk")) for _ in range(3)]
    await page.goto("/")
    field = page.get_by_role("searchbox")
    await page.keyboard.press("/")
    await expect(field).to_be_focused()
    await page.keyboard.type(word)
    await expect(page.locator("#rows tr")).to_have_count(3)
    await page.keyboard.press("Escape")
    await expect(field).not_to_be_focused()
    await expect(field).to_have_value(word)
    links = [page.get_by_role("link", name=each) for each in reversed(ids)]
    for key, place in (("j", 0), ("j", 1), ("ArrowDown", 2), ("j", 2), ("k", 1), ("ArrowUp", 0), ("k", 0)):
        await page.keyboard.press(key)
        await expect(links[place]).to_be_focused()
    assert await links[0].evaluate("(link) => getComputedStyle(link).outlineStyle") == "solid"
    await page.keyboard.press("Control+j")
    await expect(links[0]).to_be_focused()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("j")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await expect(links[0]).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/instances/{ids[2]}$"))


async def test_the_tree_is_walked_by_keys(page: Page, api: Api) -> None:
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}"))
    top = ask(api, instance_id, "top")
    below = ask(api, instance_id, "below", parent_span_id=top)
    last = ask(api, instance_id, "last")
    await page.goto(f"/instances/{instance_id}")
    tree = page.get_by_role("tree", name="Spans")
    await expect(tree.get_by_role("treeitem", level=2)).to_contain_text("below")

    async def press(key: str, focused: str, opened: dict[str, bool]) -> None:
        await page.keyboard.press(key)
        await expect(row(page, focused)).to_be_focused()
        for span_id, is_open in opened.items():
            await expect(row(page, span_id)).to_have_attribute("aria-expanded", str(is_open).lower())
            await expect(body(page, span_id)).to_be_visible(visible=is_open)

    await press("j", top, {top: False})
    await press("Enter", top, {top: True})
    await expect(body(page, top)).to_contain_text('"question": "top"')
    await press("ArrowRight", below, {top: True, below: False})
    await press("ArrowRight", below, {below: True})
    await press("ArrowRight", below, {below: True})
    await press("ArrowLeft", below, {below: False})
    await press("ArrowLeft", top, {top: True})
    await press("Escape", top, {top: False})
    await press("End", last, {last: False})
    await press("ArrowLeft", last, {last: False})
    await press("Home", top, {top: False})
    await page.keyboard.press("Tab")
    await expect(tree.locator(":focus")).to_have_count(0)
    await page.keyboard.press("Shift+Tab")
    await expect(row(page, top)).to_be_focused()
    api.do(FINISH_SPAN, top, OVER)
    await expect(page.locator(f"#s-{top}")).to_have_class("complete")
    await expect(row(page, top)).to_be_focused()


async def test_ten_thousand_spans_are_shown_searched_and_kept_up_with(page: Page, api: Api) -> None:
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}"))
    ids = [new_id() for _ in range(10_000)]
    for start in range(0, len(ids), 1000):
        items = [
            bulk_item(
                CREATE,
                None,
                span(
                    instance_id,
                    id=ids[number],
                    schema_name="ask",
                    payload={"question": f"question {number}, {'x' * 100}"},
                    parent_span_id=ids[number // 3] if number else None,
                    started_at=NOW,
                ),
                f"{ids[number]}:create",
            )
            for number in range(start, start + 1000)
        ]
        assert len(api.bulk(*items)) == 1000
    await page.goto(f"/instances/{instance_id}")
    await expect(page.locator("#counts")).to_contain_text("10,000 spans")
    await expect(page.locator("#ways")).to_contain_text("1 to 500 of 10,000")
    await page.keyboard.press("j")
    await row(page, ids[0]).click()
    await expect(body(page, ids[0])).to_contain_text("question 0,")
    await page.keyboard.press("/")
    await page.keyboard.type("question 9876,")
    await expect(page.locator("#found")).to_contain_text("1 of 10,000 spans fit")
    await expect(row(page, ids[9876])).to_be_visible()
    for number in (10_001, 10_002):
        ask(api, instance_id, "one more")
        await expect(page.locator("#counts")).to_contain_text(f"{number:,} spans")
    await expect(page.get_by_role("searchbox")).to_have_value("question 9876,")
    await page.goto(f"/?q={ids[9876]}")
    await expect(body(page, ids[9876])).to_contain_text("question 9876,")
    await expect(page.locator(f"#s-{ids[9876]}")).to_be_in_viewport()
