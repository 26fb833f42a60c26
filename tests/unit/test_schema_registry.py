"""The schema registry."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from prefactor_core import InvalidPayloadError, SchemaRegistry

OBJECT = {"type": "object"}
OTHER = {"type": "object", "properties": {"a": {"type": "string"}}}

REGISTER: dict[str, Callable[[SchemaRegistry, str, dict[str, Any]], None]] = {
    "span_schemas": lambda registry, name, schema: registry.register(name, schema),
    "span_result_schemas": lambda registry, name, schema: registry.register_result(name, schema),
    "span_type_schemas": lambda registry, name, schema: registry.register_type(name, schema),
    "quality_schemas": lambda registry, name, schema: registry.register_quality_schema(name, schema),
}


TOLD = {"title": "Tool", "description": "Calls one", "template": "{{name}}", "data_risk": {"pii": True}}


def full() -> SchemaRegistry:
    registry = SchemaRegistry()
    registry.register("llm", OBJECT)
    registry.register_result("llm", OTHER)
    registry.register_type("tool", OBJECT, OTHER, "Tool", "Calls one", "{{name}}", {"pii": True})
    registry.register_type("bare", OBJECT)
    registry.register_quality_schema("tone", OBJECT, "Tool", "Calls one", "{{name}}", {"pii": True})
    registry.register_quality_schema("bare", OTHER)
    return registry


def test_the_version_is_what_the_api_takes_as_plain_json() -> None:
    version = full().to_agent_schema_version("v1")
    assert version == {
        "external_identifier": "v1",
        "span_schemas": {"llm": OBJECT},
        "span_result_schemas": {"llm": OTHER},
        "span_type_schemas": [
            {"name": "tool", "params_schema": OBJECT, "result_schema": OTHER, **TOLD},
            {"name": "bare", "params_schema": OBJECT},
        ],
        "quality_schemas": [{"name": "tone", "schema": OBJECT, **TOLD}, {"name": "bare", "schema": OTHER}],
    }
    assert json.loads(json.dumps(version)) == version


def test_only_what_is_populated_is_in_the_version() -> None:
    assert SchemaRegistry().to_agent_schema_version("v") == {"external_identifier": "v"}
    for category, register in REGISTER.items():
        registry = SchemaRegistry()
        register(registry, "x", OBJECT)
        assert set(registry.to_agent_schema_version("v")) == {"external_identifier", category}


@pytest.mark.parametrize("category", REGISTER)
def test_a_name_is_taken_once_in_each_category(category: str) -> None:
    registry = SchemaRegistry()
    for register in REGISTER.values():
        register(registry, "x", OBJECT)
    before = registry.to_agent_schema_version("v")
    with pytest.raises(ValueError, match="'x' is already registered"):
        REGISTER[category](registry, "x", OTHER)
    assert registry.to_agent_schema_version("v") == before


def test_bad_names_and_schemas_are_refused() -> None:
    no_names: list[Any] = ["", None, 7]
    bad_schemas: list[Any] = [[1], "x", {"maximum": math.inf}, {"x": object()}]
    for register in (*REGISTER.values(), SchemaRegistry.register_unsafe):
        registry = SchemaRegistry()
        for name in no_names:
            with pytest.raises(ValueError, match="name"):
                register(registry, name, OBJECT)
        for schema in bad_schemas:
            with pytest.raises(InvalidPayloadError):
                register(registry, "x", schema)
        assert registry.to_agent_schema_version("v") == {"external_identifier": "v"}


def test_get_and_list_know_params_schemas_and_has_knows_types_too() -> None:
    registry = full()
    assert registry.list_schemas() == ["llm"]
    assert (registry.get("llm"), registry.get("tool"), registry.get("none")) == (OBJECT, None, None)
    known = {name: registry.has_schema(name) for name in ("llm", "tool", "tone", "none")}
    assert known == {"llm": True, "tool": True, "tone": False, "none": False}
    registry.register_result("only-result", OBJECT)
    assert not registry.has_schema("only-result")


def test_neither_the_callers_schema_nor_the_version_is_shared() -> None:
    registry = SchemaRegistry()
    schema: dict[str, Any] = {"properties": {}}
    registry.register("x", schema)
    registry.register_type("x", schema, data_risk=schema)
    schema["properties"]["late"] = OBJECT
    version = registry.to_agent_schema_version("v")
    version["span_schemas"]["x"]["late"] = 1
    version["span_type_schemas"][0]["params_schema"]["late"] = 1
    assert "late" not in json.dumps(registry.to_agent_schema_version("v"))


def test_merge_takes_everything_over_as_a_copy() -> None:
    merged, other = SchemaRegistry(), full()
    merged.register("tone", OTHER)  # which is a quality there, and so no clash
    merged.merge(other)
    expected = other.to_agent_schema_version("v")
    expected["span_schemas"] = {"tone": OTHER, **expected["span_schemas"]}
    assert merged.get("llm") is not other.get("llm")
    other.register_unsafe("llm", {"changed": True})
    assert other.get("llm") == {"changed": True}
    other.register("later", OBJECT)
    assert merged.to_agent_schema_version("v") == expected


@pytest.mark.parametrize("category", REGISTER)
def test_a_merge_that_clashes_anywhere_changes_nothing(category: str) -> None:
    mine, other = SchemaRegistry(), SchemaRegistry()
    for register in REGISTER.values():
        register(other, "fresh", OBJECT)
    REGISTER[category](mine, "clash", OBJECT)
    REGISTER[category](other, "clash", OTHER)
    before = mine.to_agent_schema_version("v")
    with pytest.raises(ValueError, match=f"{category}/clash"):
        mine.merge(other)
    assert mine.to_agent_schema_version("v") == before
