"""The schema registry: span, result and quality schemas of several components, as one version for the API."""

import copy
from collections.abc import Mapping
from typing import Any, Final, Protocol

from prefactor_core.payloads import encode_object

_SPANS: Final = "span_schemas"
_RESULTS: Final = "span_result_schemas"
_TYPES: Final = "span_type_schemas"
_QUALITIES: Final = "quality_schemas"
_KINDS: Final = {
    _SPANS: "Schema",
    _RESULTS: "Result schema",
    _TYPES: "Span type schema",
    _QUALITIES: "Quality schema",
}


class SchemaSource(Protocol):
    """Where a client's schemas come from: a ``SchemaRegistry``, or anything else with this method."""

    def to_agent_schema_version(self, external_id: str) -> dict[str, Any]:
        """Return the API's ``agent_schema_version`` under that external identifier."""
        ...


class SchemaRegistry:
    """Collects schemas before instances are created with them.

    Each of the four categories (params schemas, result schemas, span types, qualities) has names of its own;
    a name that is registered again in one, and a bad argument, raise ``ValueError``.
    """

    def __init__(self) -> None:
        self._categories: dict[str, dict[str, dict[str, Any]]] = {
            _SPANS: {},
            _RESULTS: {},
            _TYPES: {},
            _QUALITIES: {},
        }

    def register(self, schema_name: str, schema: dict[str, Any]) -> None:
        """Register a params schema: the JSON Schema of a span's payload, by span type (``agent:llm``)."""
        self._add(_SPANS, schema_name, _checked(schema, "schema"))

    def register_unsafe(self, schema_name: str, schema: dict[str, Any]) -> None:
        """Register a params schema in place of one that the name may have already."""
        self._categories[_SPANS][_checked_name(schema_name)] = _checked(schema, "schema")

    def register_result(self, schema_name: str, result_schema: dict[str, Any]) -> None:
        """Register the JSON Schema of a span type's result; the type needs no params schema."""
        self._add(_RESULTS, schema_name, _checked(result_schema, "result_schema"))

    def register_type(
        self,
        name: str,
        params_schema: dict[str, Any],
        result_schema: dict[str, Any] | None = None,
        title: str | None = None,
        description: str | None = None,
        template: str | None = None,
        data_risk: dict[str, Any] | None = None,
    ) -> None:
        """Register a span type with all that the API knows about one.

        Args:
            name: Name of the span type.
            params_schema: JSON Schema of the payload.
            result_schema: JSON Schema of the result.
            title: Name for people; the API takes ``name`` where it is missing.
            description: What such spans are.
            template: Display template, with ``{{field}}`` for values.
            data_risk: What kind of data such spans hold.
        """
        schemas = {"params_schema": _checked(params_schema, "params_schema"), "result_schema": result_schema}
        texts = {"title": title, "description": description, "template": template}
        entry = {"name": name, **schemas, **texts, "data_risk": data_risk}
        self._add(_TYPES, name, _checked(_given(entry), "span type"))

    def register_quality_schema(
        self,
        name: str,
        schema: dict[str, Any],
        title: str | None = None,
        description: str | None = None,
        template: str | None = None,
        data_risk: dict[str, Any] | None = None,
    ) -> None:
        """Register the schema of a quality's payload; the other arguments are those of ``register_type``."""
        texts = {"title": title, "description": description, "template": template}
        entry = {"name": name, "schema": _checked(schema, "schema"), **texts, "data_risk": data_risk}
        self._add(_QUALITIES, name, _checked(_given(entry), "quality"))

    def get(self, schema_name: str) -> dict[str, Any] | None:
        """Return a copy of what ``register`` was given for the name, ``None`` if there is none."""
        return copy.deepcopy(self._categories[_SPANS].get(schema_name))

    def has_schema(self, schema_name: str) -> bool:
        """Whether the name has a params schema, from ``register`` or from ``register_type``."""
        return schema_name in self._categories[_SPANS] or schema_name in self._categories[_TYPES]

    def list_schemas(self) -> list[str]:
        """Return the names that ``register`` was given, in their order."""
        return list(self._categories[_SPANS])

    def merge(self, other: "SchemaRegistry") -> None:
        """Take over everything from ``other``.

        Raises:
            ValueError: A name is in both registries, in any category; nothing was changed.
        """
        clashes = [
            f"{category}/{name}"
            for category, entries in other._categories.items()  # noqa: SLF001 -- of our own class
            for name in entries
            if name in self._categories[category]
        ]
        if clashes:
            raise ValueError(f"registered in both registries: {', '.join(clashes)}")
        for category, entries in other._categories.items():  # noqa: SLF001 -- of our own class
            self._categories[category].update(copy.deepcopy(entries))

    def to_agent_schema_version(self, external_id: str) -> dict[str, Any]:
        """Return everything as the API's ``agent_schema_version``, as plain JSON.

        Versions are immutable at the API: other content needs another ``external_id``.
        """
        version: dict[str, Any] = {"external_identifier": external_id}
        for category in (_SPANS, _RESULTS):
            if self._categories[category]:
                version[category] = copy.deepcopy(self._categories[category])
        for category in (_TYPES, _QUALITIES):
            if self._categories[category]:
                version[category] = copy.deepcopy(list(self._categories[category].values()))
        return version

    def _add(self, category: str, name: str, entry: dict[str, Any]) -> None:
        entries = self._categories[category]
        if _checked_name(name) in entries:
            raise ValueError(f"{_KINDS[category]} {name!r} is already registered")
        entries[name] = entry


def span_names(version: Mapping[str, Any]) -> frozenset[str]:
    """Return the span types that a schema version names, whoever made it and however well."""
    maps, types = (version.get(category) for category in (_SPANS, _RESULTS)), version.get(_TYPES)
    names = {name for schemas in maps if isinstance(schemas, dict) for name in schemas}
    if isinstance(types, list):
        names |= {str(entry.get("name")) for entry in types if isinstance(entry, dict)}
    return frozenset(names)


def _given(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a schema's name must be a non-empty string, got {name!r}")
    return name


def _checked(schema: object, field: str) -> dict[str, Any]:
    """Return a copy as plain JSON that later changes by the caller do not reach."""
    if schema is None:
        raise ValueError(f"{field}: expected a JSON Schema, got None")
    return encode_object(schema, field).decode()
