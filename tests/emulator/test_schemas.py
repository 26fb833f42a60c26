"""What agents registered of their spans and qualities: flags, refusals on request, and summaries."""

from typing import Any

import pytest

from prefactor_emulator.model import JsonObject
from tests.emulator.driver import (
    CREATE,
    FINISH_SPAN,
    QUALITY,
    Api,
    Served,
    bulk_item,
    new_key,
    span,
)
from tests.support.emulator import mistakes_of

SPAN_TYPES: list[JsonObject] = [
    {
        "name": "search",
        "title": "Search",
        "params_schema": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
        "result_schema": {"type": "object", "properties": {"hits": {"type": "integer"}}},
        "template": "searches {{ query | upcase }}{{ missing.deep }}",
        "result_template": "{{ query }}: {{ hits }} hits",
    },
    {"name": "both", "params_schema": {}, "template": "{{ a }} and {{ b }}"},
    {"name": "mapped", "params_schema": {"required": ["from the list"]}},
    {"name": "closed", "params_schema": {"additionalProperties": False}},
    {"name": "senseless", "params_schema": {"type": "nonsense"}, "template": "{{ a"},
    {"name": "distant", "params_schema": {"$ref": "http://127.0.0.1:9/schema"}},
    {"name": "endless", "params_schema": {}, "template": "{% for i in (1..100000000) %}x{% endfor %}"},
    {
        "name": "secret",
        "params_schema": {"properties": {"name": {"type": "string"}}},
        "template": "{{ name }}",
    },
]
VERSION: JsonObject = {
    "agent_version": {"name": "Reader"},
    "agent_schema_version": {
        "span_schemas": {"mapped": {"required": ["from the map"]}, "plain": {"required": ["q"]}},
        "span_result_schemas": {"plain": {"required": ["a"]}, "only a result": {}},
        "span_type_schemas": SPAN_TYPES,
        "quality_schemas": [
            {
                "name": "accuracy",
                "schema": {"properties": {"score": {"maximum": 1}}},
                "template": "score {{ score }}",
            }
        ],
    },
}


def create(
    api: Api, schema_name: str, payload: JsonObject, **more: object
) -> tuple[dict[str, Any], list[str]]:
    """Create a span and return the reply's details, and the flags."""
    instance_id = api.instance(fields=VERSION)
    details = api.do(CREATE, None, span(instance_id, schema_name=schema_name, payload=payload, **more))[
        "details"
    ]
    return details, api.look(f"instances/{instance_id}")["spans"][0]["flags"] or []


@pytest.mark.parametrize(
    ("name", "payload", "flags"),
    [
        ("search", {"query": "why"}, []),
        ("search", {}, ['payload: "query" is a required property']),
        ("search", {"query": 7}, ['payload/query: the value is not of type "string"']),
        ("plain", {}, ['payload: "q" is a required property']),
        ("mapped", {"from the list": 1}, []),
        ("only a result", {"anything": 1}, []),
        ("unheard-of", {}, ["name: is not declared by the registered schemas"]),
    ],
)
def test_what_does_not_fit_is_taken_and_flagged(
    api: Api, name: str, payload: JsonObject, flags: list[str]
) -> None:
    details, found = create(api, name, payload)
    assert details["payload"] == payload
    assert found == flags


@pytest.mark.parametrize(
    "template",
    [
        "{{ t | date: '%Y' }}",
        "{{ t | modulo: 0 }}",
        "{{ list | sum }}",
        "{{ inf | round }}",
        "{% include x %}",
        "{% for i in list limit: -1 %}{% endfor %}",
        "{% if thing contains list %}{% endif %}",
    ],
)
def test_a_template_that_fails_costs_no_span_and_no_other_of_its_request(api: Api, template: str) -> None:
    kind = {"name": "failing", "params_schema": {}, "template": template}
    version: JsonObject = {"agent_version": {}, "agent_schema_version": {"span_type_schemas": [kind]}}
    instance_id = api.instance(fields=version)
    payload: JsonObject = {"t": 1767225600000.5, "list": ["a", "b"], "inf": "inf", "x": "y", "thing": {}}
    items = [
        bulk_item(CREATE, None, span(instance_id, schema_name="failing", payload=payload), new_key())
        for _ in range(2)
    ]
    outputs = api.bulk(*items).values()
    assert [(output["status"], output["details"]["summary"]) for output in outputs] == [("success", None)] * 2
    (flag,) = api.look(f"instances/{instance_id}")["spans"][0]["flags"]
    assert flag.startswith("template: ")


def test_a_schema_or_template_that_is_no_good_is_flagged_and_nothing_is_fetched(api: Api) -> None:
    for name, words in {
        "senseless": ["payload: the registered schema is unusable: ", "template: "],
        "distant": ["payload: the registered schema is unusable: "],
        "endless": ["template: loop iteration limit reached"],
    }.items():
        details, flags = create(api, name, {})
        assert details["summary"] is None
        assert len(flags) == len(words)
        assert all(flag.startswith(each) for flag, each in zip(flags, words, strict=True)), flags


def test_a_summary_is_rendered_from_payload_and_result(api: Api) -> None:
    details, _ = create(api, "search", {"query": "why"})
    assert (details["schema_title"], details["summary"]) == ("Search", "searches WHY")
    result: JsonObject = {"result_payload": {"hits": 3, "query": "wins"}}
    over = api.do(FINISH_SPAN, details["id"], result)["details"]
    assert (over["summary"], over["result_payload"]) == ("wins: 3 hits", result["result_payload"])
    whole, _ = create(api, "both", {"a": 1}, status="complete", result_payload={"b": "<2>"})
    assert whole["summary"] == "1 and <2>"


def test_a_result_that_does_not_fit_is_flagged_beside_the_payload(api: Api) -> None:
    instance_id = api.instance(fields=VERSION)
    span_id = api.span(instance_id, schema_name="search", payload={})
    api.do(FINISH_SPAN, span_id, {"result_payload": {"hits": "many"}})
    assert api.look(f"instances/{instance_id}")["spans"][0]["flags"] == [
        'payload: "query" is a required property',
        'result_payload/hits: the value is not of type "integer"',
    ]


def test_marked_values_are_checked_without_their_marks_and_covered_in_summaries(api: Api) -> None:
    marked: JsonObject = {"name": {"$sensitive": "person", "value": "Ada", "labels": ["pii"]}}
    details, flags = create(api, "secret", marked, sensitive_encoding=True)
    assert (details["summary"], details["payload"], flags) == ("[person]", marked, [])
    _, flags = create(api, "secret", marked)
    assert flags == ['payload/name: the value is not of type "string"']


def test_all_of_a_payload_may_be_marked(api: Api) -> None:
    marked: JsonObject = {"$sensitive": "pii", "value": "x"}
    more = {"sensitive_encoding": True, "result_payload": marked, "status": "complete"}
    details, _ = create(api, "secret", marked, **more)
    assert (details["payload"], details["result_payload"]) == (marked, marked)


def test_qualities_are_told_and_flagged_too(api: Api) -> None:
    instance_id = api.instance(fields=VERSION)
    api.do(QUALITY, instance_id, {"name": "accuracy", "payload": {"score": 2}})
    reply = api.do(QUALITY, instance_id, {"name": "unheard-of", "payload": {"n": 1}})["details"]
    assert reply["quality_payloads"] == {"accuracy": {"score": 2}, "unheard-of": {"n": 1}}
    assert reply["quality_summaries"] == {"accuracy": "score 2"}


def test_what_does_not_fit_is_logged_once_and_nothing_of_it() -> None:
    served = Served()
    with served.api() as api:
        for _ in range(3):
            create(api, "search", {"query": ["Bearer sk-live"]})
            create(api, "closed", {"forged\nERROR me": 1}, result_payload={"x": 1})
            create(api, "unheard\nof", {})
    said = "does not fit what its agent registered: its"
    assert served.end() == [
        f"'search' {said} payload",
        f"'closed' {said} payload",
        f"'unheard\\nof' {said} name",
    ]


def test_strict_schemas_refuse_what_they_would_flag() -> None:
    strict = Served("--strict-schemas")
    with strict.api() as api:
        instance_id = api.instance(fields=VERSION)
        refusal = api.refused(CREATE, None, span(instance_id, schema_name="unheard-of"))
        assert (refusal.status, refusal.code) == (422, "validation_error")
        span_id = api.span(instance_id, schema_name="search", payload={"query": "why"})
        assert api.refused(FINISH_SPAN, span_id, {"result_payload": {"hits": "many"}}).status == 422
        assert api.refused(QUALITY, instance_id, {"name": "accuracy", "payload": {"score": 2}}).status == 422
        (output,) = api.bulk(bulk_item(CREATE, None, span(instance_id), new_key())).values()
        assert output["code"] == "validation_error"
        assert (
            api.do(FINISH_SPAN, span_id, {"result_payload": {"hits": 1}})["details"]["status"] == "complete"
        )
    assert mistakes_of(strict.end()) == []
