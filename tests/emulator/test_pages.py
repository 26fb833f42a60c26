"""The pages for people: complete, escaped, self-contained, and fast with much to show."""

import html
import re
from pathlib import Path

import httpx
import pytest

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


def shown_spans(text: str) -> list[str]:
    return re.findall(r'<details id="s-(\w+)"', text)


def shown_instances(text: str) -> list[str]:
    return re.findall(r'<tr id="i-(\w+)"', text)


def way(text: str, name: str) -> str | None:
    """Return the address of a link to another part of a long page."""
    found = re.search(rf'<a href="([^"]+)">{name}</a>', text)
    return html.unescape(found[1]) if found else None


def of_agent(name: str, *kinds: JsonObject) -> JsonObject:
    """Make a registration of an agent of that name, with schemas of its own for types of spans."""
    version = {"name": f"{name} II", "external_identifier": f"{name} v1"}
    schemas = {"external_identifier": f"{name} s1", "span_type_schemas": list(kinds)}
    return registration(agent_id=name, agent_version=version, agent_schema_version=schemas)


def test_everything_from_outside_is_escaped(api: Api) -> None:
    version = {"name": NASTY, "external_identifier": NASTY}
    kind = {"name": NASTY, "title": NASTY, "template": "{{ q }}", "params_schema": {"required": [NASTY]}}
    schemas = {"external_identifier": "s1", "span_type_schemas": [kind]}
    fields = registration(agent_version=version, agent_schema_version=schemas, external_identifier=NASTY)
    instance_id = api.write(REGISTER, None, fields).json()["details"]["id"]
    api.write(START, instance_id, {"timestamp": NOW})
    payload = {NASTY: NASTY, "q": NASTY, "s": {"$sensitive": NASTY, "value": NASTY, "labels": [NASTY]}}
    parent = api.span(instance_id, schema_name=NASTY, payload=payload, sensitive_encoding=True)
    flagged = api.span(instance_id, schema_name=NASTY, payload={"q": NASTY})
    result: JsonObject = {"status": "failed", "timestamp": NOW, "result_payload": {"r": NASTY}}
    api.write(FINISH_SPAN, parent, result)
    api.write(QUALITY, instance_id, {"name": NASTY, "payload": {NASTY: NASTY}})
    api.terminate(instance_id, reason=NASTY)
    paths = ["/", f"/instances/{instance_id}", f"/spans/{parent}", f"/spans/{flagged}"]
    for path in (*paths, f"/?q={NASTY}", f"/?q={NASTY}&status=failed", f"/instances/{instance_id}?q={NASTY}"):
        text = page(api, path).text
        assert (
            text.count("<script") == len(re.findall(r'<script src="/assets/\w+\.js"(?: defer)?>', text)) == 3
        )
        assert "&lt;script&gt;" in text
        assert "alert('" not in text


def test_a_page_that_is_not_there(api: Api) -> None:
    for path in ("/instances/none", "/spans/none", "/?status=odd"):
        response = page(api, path)
        assert response.status_code == 404
        assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "path",
    ["/?before=x", "/?before=-1", f"/?before={2**70}", "/instances/{}?from=x", "/instances/{}?from=-1"],
)
def test_senseless_numbers_are_refused(api: Api, path: str) -> None:
    assert page(api, path.format(api.instance())).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/?q=%00", "/?q=%ff%ed%a0%80", f"/?q={'x' * 5000}", "/instances/{}?from=99", "/instances/{}?span=-"],
)
def test_senseless_words_find_nothing(api: Api, path: str) -> None:
    response = page(api, path.format(api.instance()))
    assert response.status_code == 200
    assert "Nothing fits" in response.text or "This run has no spans yet." in response.text


def test_pages_need_nothing_from_elsewhere_and_nothing_inline(api: Api) -> None:
    instance_id = api.instance()
    span_id = api.span(instance_id)
    for path in ("/", f"/instances/{instance_id}", f"/spans/{span_id}", "/instances/none"):
        response = page(api, path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["content-type"].startswith("text/html")
        for address in re.findall(r'(?:src|href|action|data-from)="([^"]*)"', response.text):
            assert address.startswith("/"), address
            assert page(api, html.unescape(address)).status_code == 200
        assert not re.search(r"<style|\sstyle=|\son\w+=", response.text)
    for name in ("page.css", "theme.js", "live.js", "keys.js", "icon.svg"):
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
        text = page(api, "/").text
        for name, count in (("all", 230), ("pending", 110), ("active", 115), ("complete", 5), ("failed", 0)):
            assert re.search(rf'<a class="{name}" href="[^"]*"[^>]*>{name} <b>{count}</b></a>', text)
        assert "There are none in this state." in page(api, "/?status=failed").text
        for query, expected in (
            ("", ids),
            ("?status=active", ids[5:120]),
            ("?status=complete", ids[:5]),
            ("?q=read", ids),
            ("?q=read&status=pending", ids[120:]),
        ):
            seen: list[str] = []
            path: str | None = f"/{query}"
            while path:
                text = page(api, path).text
                seen += shown_instances(text)
                path = way(text, "Older")
            assert seen == expected[::-1]


def test_the_list_is_searched(api: Api) -> None:
    word = new_id()
    kind: JsonObject = {"name": f"tool:{word}", "params_schema": {}}
    first = api.instance(fields=of_agent(f"The Reader {word}", kind))
    second = api.instance("complete", fields=of_agent(f"Another {word} Writer"))
    third = api.instance(fields=of_agent(f"Clerk {new_id()}", kind))
    span_id = api.span(third, schema_name=f"tool:{word}")
    agent_id = api.look(f"instances/{first}")["agent_id"]

    def found(**query: str) -> list[str]:
        response = api.get(f"{api.root}/", params=query)
        assert response.status_code == 200
        return shown_instances(response.text)

    assert found(q=word) == [third, second, first]
    assert found(q=f"reader {word.upper()}") == [first]
    assert found(q=f"{word} ii") == [first]
    assert found(q=f" {agent_id} ") == [first]
    assert found(q=f"OOL:{word}") == [third]
    assert found(q=second) == [second]
    assert found(q=word, status="complete") == [second]
    text = api.get(f"{api.root}/", params={"q": word, "status": "complete"}).text
    assert re.findall(r'<a class="(\w+)" [^>]*>\w+ <b>([1-9]\d*)</b>', text) == [
        ("all", "3"),
        ("active", "2"),
        ("complete", "1"),
    ]
    assert f'<a class="active" href="/?q={word}&amp;status=active"' in text
    assert f'name="q" value="{word}"' in text
    assert '<input type="hidden" name="status" value="complete">' in text
    text = api.get(f"{api.root}/", params={"q": f"no {word}"}).text
    assert f"Nothing fits “no {word}”." in text
    led = api.get(f"{api.root}/", params={"q": span_id})
    assert (led.status_code, led.headers["location"]) == (
        303,
        f"/instances/{third}?span={span_id}#s-{span_id}",
    )


def test_a_run_is_a_tree_in_time(api: Api) -> None:
    instance_id = api.instance()
    root, child, later, open_one = (new_id() for _ in range(4))
    moment = "2026-03-01T10:00:{:02}.000Z"
    for span_id, parent, start, end in ((root, None, 0, 20), (later, root, 10, 15), (child, later, 10, 12)):
        times = {"started_at": moment.format(start), "finished_at": moment.format(end)}
        made = api.create(instance_id, id=span_id, parent_span_id=parent, status="complete", **times)
        assert made.is_success
    text = page(api, f"/instances/{instance_id}").text
    assert shown_spans(text) == [root, later, child]
    assert re.findall(r'aria-level="(\d)"', text) == ["1", "2", "3"]
    assert re.findall(r'<rect x="([\d.]+)" width="([\d.]+)"', text) == [
        ("0.0", "1000.0"),
        ("500.0", "250.0"),
        ("500.0", "100.0"),
    ]
    assert re.findall(r'class="took" title="complete">([^<]+)<', text) == ["20 s", "5 s", "2 s"]
    assert api.create(instance_id, id=open_one, status="pending").is_success
    text = page(api, f"/instances/{instance_id}").text
    assert text.count("<rect") == 3, "what has not started has no bar"
    assert 'title="pending">pending<' in text


def test_a_run_tells_what_it_is_and_what_became_of_it(api: Api) -> None:
    name = f"Clerk {new_id()}"
    fields = of_agent(name) | {"purpose": "eval", "external_identifier": f"job {name}"}
    instance_id = api.instance(fields=fields)
    for status in ("active", "failed", "failed"):
        api.span(instance_id, status=status)
    api.do(QUALITY, instance_id, {"name": "accuracy", "payload": {"score": 0.5}})
    text = page(api, f"/instances/{instance_id}").text
    run = api.look(f"instances/{instance_id}")
    for expected in (
        *(f"<code>{run[key]}</code>" for key in ("id", "agent_id", "environment_id", "agent_deployment_id")),
        f"<code>{run['agent_version_id']}</code>",
        f"<dd>{name} II {name} v1</dd>",
        "<dd>eval</dd>",
        f"<dd>job {name}</dd>",
        "3 spans",
        '<span class="badge failed">2 failed</span>',
        "<b>accuracy</b>",
        "&#34;score&#34;: 0.5",
        "&#34;span_type_schemas&#34;: []",
    ):
        assert expected in text
    listed = page(api, f"/?q={instance_id}").text
    assert name in listed
    assert '<span class="badge failed">2 failed</span>' in listed


def test_what_does_not_fit_is_marked_wherever_it_is_shown(api: Api) -> None:
    kind: JsonObject = {
        "name": "ask",
        "title": "A question",
        "template": "Asked {{ question }}",
        "params_schema": {"required": ["question"]},
    }
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}", kind))
    assert "flagged" not in page(api, f"/?q={instance_id}").text
    good = api.span(instance_id, schema_name="ask", payload={"question": "why?"})
    bad = api.span(instance_id, schema_name="ask", payload={"answer": 42})
    text = page(api, f"/instances/{instance_id}").text
    rows = dict(zip(shown_spans(text), text.split("<details id=")[-2:], strict=True))
    assert "A question" in rows[good]
    assert '<span class="gist">Asked why?</span>' in rows[good]
    assert 'class="flag"' not in rows[good]
    assert 'class="flag"' in rows[bad]
    assert "1 flagged" in text
    assert "1 flagged" in page(api, f"/?q={instance_id}").text
    (flag,) = api.look(f"instances/{instance_id}")["spans"][1]["flags"]
    assert (
        f"<li>{html.escape(flag).replace('&quot;', '&#34;').replace('&#x27;', '&#39;')}</li>"
        in page(api, f"/spans/{bad}").text
    )
    assert "Does not fit" not in page(api, f"/spans/{good}").text


def test_what_a_span_carries_is_on_a_page_of_its_own(api: Api) -> None:
    instance_id = api.instance()
    result: JsonObject = {"e": [1, None]}
    span_id = api.span(instance_id, payload={"question": "why?"}, status="failed", result_payload=result)
    run = page(api, f"/instances/{instance_id}").text
    assert f'data-from="/spans/{span_id}"' in run
    assert "why?" not in run
    text = page(api, f"/spans/{span_id}").text
    article = text[text.index("<article") : text.index("</article>")]
    assert "&#34;question&#34;: &#34;why?&#34;" in article
    assert "&#34;e&#34;: [\n    1,\n    null\n  ]" in article
    assert f'href="/instances/{instance_id}?span={span_id}#s-{span_id}"' in text


@pytest.mark.parametrize("told", [True, False])
def test_sensitive_values_are_covered_where_the_span_says_that_it_has_some(api: Api, told: bool) -> None:
    marked = {"$sensitive": "email", "value": "jo@example.org", "labels": ["personal"]}
    payload = {"from": marked, "to": [marked], "odd": {"$sensitive": "no value"}}
    span_id = api.span(
        api.instance(), payload=payload, result_payload={"of": marked}, sensitive_encoding=told
    )
    text = page(api, f"/spans/{span_id}").text
    covers = re.findall(
        r'<details class="cover"><summary[^>]*>([^<]+)</summary><span>([^<]+)</span></details>', text
    )
    assert covers == [("email, personal", "&#34;jo@example.org&#34;")] * (3 if told else 0)
    assert text.count("jo@example.org") == 3
    assert "no value" in text


def test_a_run_is_searched(api: Api) -> None:
    kind: JsonObject = {"name": "ask", "template": "Asked {{ q }}", "params_schema": {}}
    instance_id = api.instance(fields=of_agent(f"Clerk {new_id()}", kind))
    root = api.span(instance_id, schema_name="ask", payload={"q": "how"})
    child = api.span(instance_id, schema_name="ask", payload={"q": "WHY"}, parent_span_id=root)
    other = api.span(instance_id, schema_name="tell", payload={})

    def found(words: str) -> str:
        return api.get(f"{api.root}/instances/{instance_id}", params={"q": words}).text

    for words, fitting, shown in (
        ("why", 1, [root, child]),
        ("ELL", 1, [other]),
        ("ask", 2, [root, child]),
        (child, 1, [root, child]),
        ("nonesuch", 0, []),
    ):
        text = found(words)
        assert f"{fitting} of 3 spans fit “{words}”." in text
        assert shown_spans(text) == shown
        assert text.count(' above"') == len(shown) - fitting
    assert 'name="q" value="why"' in found(" why ")


def test_a_deep_run_and_a_long_one_are_shown_in_parts(api: Api) -> None:
    instance_id = api.instance()
    ids = [new_id() for _ in range(1200)]
    parents = [None, *ids[:899], *[None] * 300]
    payload: JsonObject = {"text": "x" * 2000}
    items = [
        bulk_item(CREATE, None, span(instance_id, id=each, parent_span_id=parent, payload=payload), new_id())
        for parent, each in zip(parents, ids, strict=True)
    ]
    for start in range(0, len(items), 400):
        assert len(api.bulk(*items[start : start + 400])) == 400
    text = page(api, f"/instances/{instance_id}").text
    assert shown_spans(text) == ids[:500]
    assert "1 to 500 of 1,200" in text
    assert len(text) < 1_000_000, "payloads are shown when their span is opened"
    assert text.count("<details") == text.count("</details>")
    further = way(text, "Further")
    assert further
    text = page(api, further).text
    assert shown_spans(text) == ids[500:1000]
    assert way(text, "Earlier") == f"/instances/{instance_id}?from=0"
    text = page(api, f"/instances/{instance_id}?span={ids[1100]}").text
    assert shown_spans(text) == ids[1000:], "the part in which the span is"
    assert re.findall(r'<details id="s-(\w+)"[^>]* open>', text) == [ids[1100]]
    text = page(api, f"/instances/{instance_id}?q={ids[700]}").text
    assert shown_spans(text) == ids[:500]
    assert way(text, "Further") == f"/instances/{instance_id}?q={ids[700]}&from=500"
