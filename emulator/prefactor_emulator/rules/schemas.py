"""What an agent registered of its spans and qualities: whether they fit, and how they are told in a line."""

import logging
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final, cast

from jsonschema_rs import Validator, validator_for
from liquid import BoundTemplate, Environment
from liquid.exceptions import LiquidError

from prefactor_emulator.model import JsonObject
from prefactor_emulator.requests import AgentSchemaVersion, SpanTypeSchema
from prefactor_emulator.storage.store import Store

_MOST_VERSIONS: Final = 256
_MOST_FLAGS: Final = 5
_MOST_LOGGED: Final = 1_000

logger = logging.getLogger(__name__)


class _Liquid(Environment):
    """Liquid without files, and with bounds that no line of text needs to reach."""

    loop_iteration_limit = 1_000
    output_stream_limit = 10_000
    local_namespace_limit = 100_000


_LIQUID: Final = _Liquid()


@dataclass(frozen=True, slots=True)
class Told:
    """What the schemas make of a span or a quality.

    Attributes:
        title: What its type is called.
        summary: Its line; None: its type has no template, or one that fails.
        flags: What does not fit, without any value from it; None: all fits.
    """

    title: str | None
    summary: str | None
    flags: list[str] | None


class _Schema:
    """A JSON Schema. One that is no good says so wherever it is asked."""

    def __init__(self, schema: JsonObject) -> None:
        self._validator: Validator | None = None
        try:
            # Nothing is fetched, and messages tell no value.
            self._validator = validator_for(schema, offline=True, mask="the value")
        except ValueError as error:
            self._problem = f"the registered schema is unusable: {str(error).partition(chr(10))[0]}"

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

    def render(self, values: JsonObject, *, finished: bool) -> str | None:
        """Render the summary.

        Raises:
            LiquidError: The template is no good.
        """
        template = (finished and self._result_template) or self._template
        return None if template is None else _template(template).render(values)


class Schemas:
    """One version of an agent's schemas.

    Args:
        version: As it was registered.
    """

    def __init__(self, version: AgentSchemaVersion) -> None:
        self._spans = {each.name: _Type(each) for each in version.span_types()}
        self._qualities = {each.name: _Type(each) for each in version.quality_types()}
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
        shown = payload | (result or {})
        if sensitive:
            shown = cast("JsonObject", _unmarked(shown, covered=True))
            payload, result = (cast("JsonObject", _unmarked(each)) for each in (payload, result))
        return self._tell(name, self._spans.get(name), payload, result, shown)

    def tell_quality(self, name: str, payload: JsonObject) -> Told:
        """Hold a quality against the schema of its name, and tell it in a line."""
        return self._tell(name, self._qualities.get(name), payload, None, payload)

    def _tell(
        self,
        name: str,
        kind: _Type | None,
        payload: JsonObject,
        result: JsonObject | None,
        shown: JsonObject,
    ) -> Told:
        if kind is None:
            return self._told(name, None, None, ["its name is not declared by the registered schemas"])
        flags = kind.payload.flags("payload", payload)
        if result is not None:
            flags += kind.result.flags("result_payload", result)
        summary = None
        try:
            summary = kind.render(shown, finished=result is not None)
        except LiquidError as error:
            flags.append(f"template: {error.message}")
        return self._told(name, kind.title, summary, flags)

    def _told(self, name: str, title: str | None, summary: str | None, flags: list[str]) -> Told:
        for flag in flags:
            if (name, flag) not in self._logged and len(self._logged) < _MOST_LOGGED:
                self._logged.add((name, flag))
                logger.warning("%r does not fit what its agent registered: %s", name, flag)
        return Told(title, summary, flags or None)


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
            version = AgentSchemaVersion.model_validate(self._store.schemas(version_id))
            known = self._known[version_id] = Schemas(version)
        return known


@lru_cache(maxsize=1024)
def _template(text: str) -> BoundTemplate:
    return _LIQUID.from_string(text)


def _unmarked(value: object, *, covered: bool = False) -> object:
    """Put values, or with ``covered`` only their kinds, in the place of what marks them as sensitive."""
    if isinstance(value, dict):
        if "$sensitive" in value:
            return f"[{value['$sensitive']}]" if covered else value.get("value")
        return {name: _unmarked(each, covered=covered) for name, each in value.items()}
    return [_unmarked(each, covered=covered) for each in value] if isinstance(value, list) else value
