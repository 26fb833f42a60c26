"""The pages for people: complete, escaped, self-contained, and fast with much to show."""

import re
from pathlib import Path

import httpx

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject
from tests.emulator.driver import (
    CREATE,
    FINISH,
    FINISH_SPAN,
    NOW,
    OVER,
    QUALITY,
    REGISTER,
    START,
    Api,
    EmulatorProcess,
    bulk_item,
    registration,
    span,
)

NASTY = "<script>alert('&\"')</script>"


def page(api: Api, path: str, **headers: str) -> httpx.Response:
    return api.get(api.root + path, headers=headers)


def shown_spans(html: str) -> list[str]:
    return re.findall(r"<details id='s-(\w+)'", html)


def test_everything_from_outside_is_escaped(api: Api) -> None:
    version = {"name": NASTY, "external_identifier": "v1"}
    schemas = {"external_identifier": "s1", "span_schemas": {NASTY: {}}}
    fields = registration(agent_version=version, agent_schema_version=schemas)
    instance_id = api.write(REGISTER, None, fields).json()["details"]["id"]
    api.write(START, instance_id, {"timestamp": NOW})
    parent = new_id()
    api.create(instance_id, id=parent, schema_name=NASTY, payload={NASTY: NASTY})
    result: JsonObject = {"status": "failed", "timestamp": NOW, "result_payload": {"r": NASTY}}
    api.write(FINISH_SPAN, parent, result)
    api.write(QUALITY, instance_id, {"name": NASTY, "payload": {NASTY: NASTY}})
    api.terminate(instance_id, reason=NASTY)
    for path in ("/", f"/instances/{instance_id}", f"/spans/{parent}"):
        html = page(api, path).text
        assert html.count("<script") == html.count("<script src='/assets/live.js' defer>") == 1
        assert "&lt;script&gt;" in html
        assert "alert('" not in html


def test_a_page_that_is_not_there(api: Api) -> None:
    for path in ("/instances/none", "/spans/none", "/?status=odd"):
        response = page(api, path)
        assert response.status_code == 404
        assert response.headers["content-type"].startswith("text/html")


def test_pages_need_nothing_from_elsewhere_and_nothing_inline(api: Api) -> None:
    instance_id = api.instance()
    span_id = api.span(instance_id)
    for path in ("/", f"/instances/{instance_id}", f"/spans/{span_id}", "/instances/none"):
        response = page(api, path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["content-type"].startswith("text/html")
        for address in re.findall(r"(?:src|href)='([^']*)'", response.text):
            assert address.startswith("/"), address
            assert page(api, address.replace("&amp;", "&")).status_code == 200
        assert not re.search(r"<style|\sstyle=|\son\w+=", response.text)
    for name in ("page.css", "live.js", "icon.svg"):
        response = page(api, f"/assets/{name}")
        assert response.is_success
        assert "http" not in response.text.replace("http://www.w3.org/2000/svg", "")


def test_a_page_is_sent_again_only_when_something_was_written(api: Api) -> None:
    instance_id = api.instance()
    for path in ("/", f"/instances/{instance_id}"):
        first = page(api, path)
        tag = first.headers["etag"]
        again = page(api, path, **{"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        api.create(instance_id)
        changed = page(api, path, **{"If-None-Match": tag})
        assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
        assert changed.text != first.text


def test_a_state_has_another_name_after_a_restart(tmp_path: Path) -> None:
    tags = set()
    for _ in range(2):
        with EmulatorProcess("--db", str(tmp_path / "runs.db")) as emulator, emulator.api() as api:
            tags.add(page(api, "/").headers["etag"])
    assert len(tags) == 2


def test_the_list_is_filtered_counted_and_turned() -> None:
    with EmulatorProcess() as emulator, emulator.api() as api:
        assert "No agent has registered here yet." in page(api, "/").text
        ids = [new_id() for _ in range(230)]
        items = [bulk_item(REGISTER, None, registration(id=each), f"{each}:reg") for each in ids]
        items += [bulk_item(START, each, {"timestamp": NOW}, f"{each}:start") for each in ids[:120]]
        items += [bulk_item(FINISH, each, OVER, f"{each}:finish") for each in ids[:5]]
        assert len(api.bulk(*items)) == len(items)
        html = page(api, "/").text
        for name, count in (("all", 230), ("pending", 110), ("active", 115), ("complete", 5), ("failed", 0)):
            assert re.search(rf"<a class='{name}' href='[^']*'[^>]*>{name} <b>{count}</b></a>", html)
        assert "There are none in this state." in page(api, "/?status=failed").text
        for status, expected in (("", ids), ("active", ids[5:120]), ("complete", ids[:5])):
            seen: list[str] = []
            path = f"/?status={status}" if status else "/"
            while path:
                html = page(api, path).text
                seen += re.findall(r"<tr id='i-(\w+)'", html)
                older = re.search(r"<a href='([^']+)'>Older</a>", html)
                path = older[1].replace("&amp;", "&") if older else ""
            assert seen == expected[::-1]


def test_a_run_is_a_tree_in_time(api: Api) -> None:
    instance_id = api.instance()
    root, child, later, open_one = (new_id() for _ in range(4))
    moment = "2026-03-01T10:00:{:02}.000Z"
    for span_id, parent, start, end in ((root, None, 0, 20), (later, root, 10, 15), (child, later, 10, 12)):
        times = {"started_at": moment.format(start), "finished_at": moment.format(end)}
        made = api.create(instance_id, id=span_id, parent_span_id=parent, status="complete", **times)
        assert made.is_success
    html = page(api, f"/instances/{instance_id}").text
    assert shown_spans(html) == [root, later, child]
    assert re.findall(r"aria-level='(\d)'", html) == ["1", "2", "3"]
    assert re.findall(r"<rect x='([\d.]+)' width='([\d.]+)'", html) == [
        ("0.0", "1000.0"),
        ("500.0", "250.0"),
        ("500.0", "100.0"),
    ]
    assert re.findall(r"class='took' title='complete'>([^<]+)<", html) == ["20 s", "5 s", "2 s"]
    assert api.create(instance_id, id=open_one, status="pending").is_success
    html = page(api, f"/instances/{instance_id}").text
    assert html.count("<rect") == 3, "what has not started has no bar"
    assert "title='pending'>pending<" in html


def test_what_a_span_carries_is_on_a_page_of_its_own(api: Api) -> None:
    instance_id = api.instance()
    result: JsonObject = {"e": [1, None]}
    span_id = api.span(instance_id, payload={"question": "why?"}, status="failed", result_payload=result)
    run = page(api, f"/instances/{instance_id}").text
    assert f"data-from='/spans/{span_id}'" in run
    assert "why?" not in run
    html = page(api, f"/spans/{span_id}").text
    article = html[html.index("<article>") : html.index("</article>")]
    assert "&quot;question&quot;: &quot;why?&quot;" in article
    assert "&quot;e&quot;: [\n    1,\n    null\n  ]" in article
    assert f"href='/instances/{instance_id}'" in html


def test_a_deep_run_and_a_long_one_are_shown_in_parts(api: Api) -> None:
    instance_id = api.instance()
    ids = [new_id() for _ in range(2500)]
    parents = [None, *ids[:1499], *[None] * 1000]
    payload: JsonObject = {"text": "x" * 2000}
    items = [
        bulk_item(CREATE, None, span(instance_id, id=each, parent_span_id=parent, payload=payload), new_id())
        for parent, each in zip(parents, ids, strict=True)
    ]
    for start in range(0, len(items), 500):
        assert len(api.bulk(*items[start : start + 500])) == 500
    html = page(api, f"/instances/{instance_id}").text
    assert shown_spans(html) == ids[:2000]
    assert "1 to 2,000 of 2,500" in html
    assert len(html) < 2_000_000, "payloads are shown when their span is opened"
    assert html.count("<details") == html.count("</details>")
    further = re.search(r"<a href='([^']+)'>Further</a>", html)
    assert further
    html = page(api, further[1]).text
    assert shown_spans(html) == ids[2000:]
    assert f"<a href='/instances/{instance_id}?from=0'>Earlier</a>" in html
