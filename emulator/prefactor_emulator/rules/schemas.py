"""What an agent registered of its spans and qualities: whether they fit, and how they are told in a line."""

import logging
from dataclasses import dataclass
from itertools import islice
from typing import Final

from jsonschema_rs import Validator, validator_for
from liquid import BoundTemplate, Environment
from pydantic_core import to_json

from prefactor_emulator.model import SENSITIVE, JsonObject
from prefactor_emulator.requests import AgentSchemaVersion, SpanTypeSchema
from prefactor_emulator.storage.records import VersionRecord
from prefactor_emulator.storage.store import Store

_MOST_BYTES: Final = 2_000_000
_MOST_FLAGS: Final = 5
_MOST_LOGGED: Final = 1_000
_LONGEST_FLAG: Final = 300

logger = logging.getLogger(__name__)


class _Liquid(Environment):
    """Liquid without files, and with bounds that no line of text needs to reach."""

    loop_iteration_limit = 1_000
    output_stream_limit = 10_000
    local_namespace_limit = 100_000


_LIQUID: Final = _Liquid()


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the schemas make of a span or a quality.

    Attributes:
        title: What its type is called.
        summary: Its line; None: its type has no template, or one that fails.
        flags: What does not fit; None: all fits.
    """

    title: str | None
    summary: str | None
    flags: list[str] | None


class _Schema:
    """A JSON Schema. One that is no good says so wherever it is asked."""

    def __init__(self, schema: JsonObject) -> None:
        self._validator: Validator | None = None
        try:
            # Nothing is fetched.
            self._validator = validator_for(schema, offline=True, mask="the value")
        except ValueError as error:
            self._problem = f"the registered schema is unusable: {error}"

    def flags(self, field: str, value: object) -> list[str]:
        if self._validator is None:
            return [f"{field}: {self._problem}"]
        errors = islice(self._validator.iter_errors(value), _MOST_FLAGS)
        return [f"{'/'.join([field, *map(str, error.instance_path)])}: {error.message}" for error in errors]


class _Type:
    """What was registered of one name of spans or qualities."""

    def __init__(self, registered: SpanTypeSchema) -> None:
        self.title = registered.title
        self.payload = _Schema(registered.params_schema)
        self.result = _Schema(registered.result_schema or {})
        self._template = registered.template
        self._result_template = registered.result_template
        self._compiled: dict[str, BoundTemplate] = {}

    def render(self, values: JsonObject, *, finished: bool) -> tuple[str | None, list[str]]:
        """Render the summary, and tell what went wrong with that."""
        template = (finished and self._result_template) or self._template
        if template is None:
            return None, []
        try:
            if template not in self._compiled:
                self._compiled[template] = _LIQUID.from_string(template)
            return self._compiled[template].render(values), []
        except Exception as error:  # noqa: BLE001 - filters raise whatever Python raises of their values
            return None, [f"template: {error}"]


class Schemas:
    """One version of an agent's schemas.

    Args:
        version: As it was registered.
    """

    def __init__(self, version: AgentSchemaVersion) -> None:
        self._spans = {each.name: _Type(each) for each in version.span_types()}
        self._qualities = {each.name: _Type(each) for each in version.quality_types()}
        self._logged: set[tuple[str, str]] = set()

    def span(
        self, name: str, payload: JsonObject, result: JsonObject | None, *, sensitive: bool
    ) -> Assessment:
        """Hold a span against the schemas of its name, and tell it in a line.

        Args:
            name: The name of its schema.
            payload: Its payload.
            result: Its result, if it has one.
            sensitive: Whether these may hold marked values. Those are covered in the line.
        """
        kind = self._spans.get(name)
        if not sensitive:
            return self._assess(name, kind, payload, result, payload | (result or {}))
        shown: JsonObject = {}
        for each in (payload, result):
            covered = _unmarked(each, covered=True)
            shown |= covered if isinstance(covered, dict) else {}
        return self._assess(name, kind, _unmarked(payload), _unmarked(result), shown)

    def quality(self, name: str, payload: JsonObject) -> Assessment:
        """Hold a quality against the schema of its name, and tell it in a line."""
        return self._assess(name, self._qualities.get(name), payload, None, payload)

    def _assess(
        self, name: str, kind: _Type | None, payload: object, result: object, shown: JsonObject
    ) -> Assessment:
        if kind is None:
            return self._assessment(name, None, None, ["name: is not declared by the registered schemas"])
        flags = kind.payload.flags("payload", payload)
        if result is not None:
            flags += kind.result.flags("result_payload", result)
        summary, failed = kind.render(shown, finished=result is not None)
        return self._assessment(name, kind.title, summary, flags + failed)

    def _assessment(self, name: str, title: str | None, summary: str | None, flags: list[str]) -> Assessment:
        for flag in flags:
            part = flag.partition(":")[0].partition("/")[0]  # what follows may tell of values
            if (name, part) not in self._logged and len(self._logged) < _MOST_LOGGED:
                self._logged.add((name, part))
                logger.warning("%r does not fit what its agent registered: its %s", name, part)
        return Assessment(title, summary, [flag[:_LONGEST_FLAG] for flag in flags] or None)


class SchemaLibrary:
    """The schemas of the versions in use.

    Args:
        store: Where versions are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Schemas] = {}
        self._bytes = 0

    def of(self, version_id: str) -> Schemas:
        """Find the schemas of a version."""
        known = self._known.get(version_id)
        if known is None:
            version = self._store.find(VersionRecord, "id = ?", version_id)
            content = version.content if version else {}
            size = len(to_json(content))  # compiled, it takes a hundred times as much
            if self._bytes + size > _MOST_BYTES:
                self._known, self._bytes = {}, 0
            self._bytes += size
            known = self._known[version_id] = Schemas(AgentSchemaVersion.model_validate(content))
        return known


def _unmarked(value: object, *, covered: bool = False) -> object:
    """Put values, or with ``covered`` only their kinds, in the place of what marks them as sensitive."""
    if isinstance(value, dict):
        if SENSITIVE in value and "value" in value:
            return f"[{value[SENSITIVE]}]" if covered else value["value"]
        return {name: _unmarked(each, covered=covered) for name, each in value.items()}
    return [_unmarked(each, covered=covered) for each in value] if isinstance(value, list) else value
