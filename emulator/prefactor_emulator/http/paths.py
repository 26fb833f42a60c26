"""Where the API's requests are found and how large they may be: for its routes, faults and description."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from prefactor_emulator.model import OperationType

API_PREFIX: Final = "/api/v1"
BULK_PATH: Final = "/bulk"

# Assumed limits: the API publishes none.
MAX_ITEMS: Final = 1000
MAX_BODY_BYTES: Final = 5 * 1024 * 1024

WRITE_PATHS: Final[Mapping[OperationType, str]] = MappingProxyType(
    {
        OperationType.REGISTER_INSTANCE: "/agent_instance/register",
        OperationType.START_INSTANCE: "/agent_instance/{id}/start",
        OperationType.FINISH_INSTANCE: "/agent_instance/{id}/finish",
        OperationType.RECORD_QUALITY: "/agent_instance/{id}/record_quality",
        OperationType.CREATE_SPAN: "/agent_spans",
        OperationType.FINISH_SPAN: "/agent_spans/{id}/finish",
    }
)


def write_at(path: str) -> tuple[OperationType, str | None] | None:
    """Tell which single write a request's path asks for, and the id in it."""
    steps = path.removeprefix(API_PREFIX).split("/")
    for operation_type, template in WRITE_PATHS.items():
        wanted = template.split("/")
        if len(wanted) == len(steps) and all(w in {"{id}", s} for w, s in zip(wanted, steps, strict=True)):
            return operation_type, steps[wanted.index("{id}")] if "{id}" in wanted else None
    return None
