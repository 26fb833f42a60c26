"""What an agent registered of its spans and qualities: whether they fit, and how they are told in a line."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from jsonschema_rs import ValidationError, Validator, validator_for
from liquid import BoundTemplate, Environment
from liquid.exceptions import LiquidError

from prefactor_emulator.model import JsonObject
from prefactor_emulator.requests import AgentSchemaVersion
from prefactor_emulator.storage.store import Store

_MOST_VERSIONS: Final = 256
_MOST_FLAGS: Final = 5
_UNDECLARED: Final = "is not declared by the registered schemas"

logger = logging.getLogger(__name__)


class _Liquid(Environment):
    """Liquid without files, and with bounds that no line of text needs to reach."""

    loop_iteration_limit = 1_000
    output_stream_limit = 10_000
    local_namespace_limit = 100_000


_LIQUID: Final = _Liquid()


@dataclass(frozen=True, slots=True)
class _Schema:
    """A schema, or what is wrong with it."""

    validator: Validator | None
    problem: str = ""

    def flags(self, field: str, value: object) -> list[str]:
        if self.validator is None:
            return [f"{field}: {self.problem}"]
        found = []
        for error in self.validator.iter_errors(value):
            place = "/".join([field, *map(str, error.instance_path)])
            found.append(f"{place}: {error.message}")
            if len(found) == _MOST_FLAGS:
                break
        return found


@dataclass(frozen=True, slots=True)
class _Line:
    """A template, or what is wrong with it."""

    template: BoundTemplate | None
    problem: str = ""

    def render(self, values: Mapping[str, object]) -> tuple[str | None, list[str]]:
        if self.template is None:
            return None, [f"template: {self.problem}"]
        try:
            return self.template.render(values), []
        except LiquidError as error:
            return None, [f"template: {error.message}"]


@dataclass(frozen=True, slots=True)
class Told:
    """What the schemas make of a span or a quality.

    Attributes:
        title: What its type is called.
        summary: Its line; None: its type has no template, or one that fails.
        flags: What does not fit, without any value from it.
    """

    title: str | None
    summary: str | None
    flags: tuple[str, ...]


class Schemas:
    """One version of an agent's schemas.

    Args:
        content: As it was registered.
    """

    def __init__(self, content: JsonObject) -> None:
        version = AgentSchemaVersion.model_validate(content)
        self._declared = set(version.span_schemas or ()) | set(version.span_result_schemas or ())
        self._payloads = {name: _schema(schema) for name, schema in (version.span_schemas or {}).items()}
        self._results = {
            name: _schema(schema) for name, schema in (version.span_result_schemas or {}).items()
        }
        self._titles: dict[str, str | None] = {}
        self._lines: dict[str, _Line] = {}
        self._result_lines: dict[str, _Line] = {}
        for kind in version.span_type_schemas or ():
            self._declared.add(kind.name)
            self._payloads[kind.name] = _schema(kind.params_schema)
            if kind.result_schema is not None:
                self._results[kind.name] = _schema(kind.result_schema)
            self._titles[kind.name] = kind.title
            if kind.template is not None:
                self._lines[kind.name] = _line(kind.template)
            if kind.result_template is not None:
                self._result_lines[kind.name] = _line(kind.result_template)
        qualities = version.quality_schemas or ()
        self._qualities = {each.name: _schema(each.schema_) for each in qualities}
        self._quality_lines = {each.name: _line(each.template) for each in qualities if each.template}
        self._logged: set[tuple[str, str]] = set()

    def tell_span(
        self, name: str, payload: JsonObject, result: JsonObject | None, *, sensitive: bool
    ) -> Told:
        """Hold a span against the schemas of its name, and tell it in a line.

        Args:
            name: The name of its schema.
            payload: Its payload.
            result: Its result, if it has one.
            sensitive: Whether these may hold marked values.
        """
        flags = []
        if sensitive:
            payload = cast("JsonObject", _unmarked(payload))
            result = cast("JsonObject | None", _unmarked(result))
        if name not in self._declared:
            flags.append(f"schema_name: {_UNDECLARED}")
        if name in self._payloads:
            flags += self._payloads[name].flags("payload", payload)
        if result is not None and name in self._results:
            flags += self._results[name].flags("result_payload", result)
        line = self._result_lines.get(name) if result is not None else None
        return self._told(name, line or self._lines.get(name), payload | (result or {}), flags)

    def tell_quality(self, name: str, payload: JsonObject) -> Told:
        """Hold a quality against the schema of its name, and tell it in a line."""
        schema = self._qualities.get(name)
        flags = schema.flags("payload", payload) if schema else [f"name: {_UNDECLARED}"]
        return self._told(name, self._quality_lines.get(name), payload, flags)

    def _told(self, name: str, line: _Line | None, values: JsonObject, flags: list[str]) -> Told:
        summary, failed = line.render(values) if line else (None, [])
        flags += failed
        for flag in flags:
            if (name, flag) not in self._logged and len(self._logged) < 1_000:
                self._logged.add((name, flag))
                logger.warning("%r does not fit what its agent registered: %s", name, flag)
        return Told(self._titles.get(name), summary, tuple(flags))


class SchemaLibrary:
    """The schemas of the versions in use.

    Args:
        store: Where versions are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Schemas] = {}

    def of(self, version_id: str) -> Schemas:
        """Find the schemas of a version."""
        known = self._known.get(version_id)
        if known is None:
            if len(self._known) >= _MOST_VERSIONS:
                self._known.clear()
            known = self._known[version_id] = Schemas(self._store.schemas(version_id))
        return known


def _schema(schema: JsonObject) -> _Schema:
    try:
        # Nothing is fetched, and messages tell no value.
        return _Schema(validator_for(schema, offline=True, mask="the value"))
    except (ValidationError, ValueError) as error:
        return _Schema(None, f"the registered schema is unusable: {str(error).partition(chr(10))[0]}")


def _line(template: str) -> _Line:
    try:
        return _Line(_LIQUID.from_string(template))
    except LiquidError as error:
        return _Line(None, str(error.message))


def _unmarked(value: object) -> object:
    """Put values in the place of what marks them as sensitive."""
    if isinstance(value, dict):
        if "$sensitive" in value:
            return value.get("value")
        return {name: _unmarked(each) for name, each in value.items()}
    return [_unmarked(each) for each in value] if isinstance(value, list) else value
