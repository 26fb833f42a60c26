"""Telemetry for AI agents.

Open spans around what your agent does; they reach the Prefactor API complete, in order and exactly once, and
your agent never waits for the network::

    version = {"name": "my-agent", "external_identifier": "1.0"}
    async with PrefactorCoreClient(config) as client:
        async with client.create_agent_instance(agent_version=version) as instance:
            await instance.start()
            async with instance.span("agent:llm", payload={"prompt": "Hi"}) as span:
                span.set_result({"response": await call_llm("Hi")})
"""

from prefactor_core._version import __version__
from prefactor_core.accounts import ClientStats, CloseSummary
from prefactor_core.client import PrefactorCoreClient
from prefactor_core.config import HttpClientConfig, PrefactorCoreConfig, QueueConfig
from prefactor_core.context_stack import SpanContextStack
from prefactor_core.exceptions import (
    ClientAlreadyInitializedError,
    ClientClosedError,
    ClientNotInitializedError,
    InstanceNotFoundError,
    InvalidIdentifierError,
    InvalidInputError,
    InvalidPayloadError,
    MissingDriverError,
    OperationError,
    PrefactorCoreError,
    PrefactorTelemetryFailureError,
    PrefactorTerminatedError,
    QueueClosedError,
    SpanNotFoundError,
    TransportError,
    UnknownTransportError,
)
from prefactor_core.instance_handle import AgentInstanceHandle
from prefactor_core.managers.agent_instance import AgentInstanceManager
from prefactor_core.managers.span import SpanManager
from prefactor_core.models import AgentInstance, Span
from prefactor_core.operations import Operation, OperationType
from prefactor_core.queue.base import DeadLetter, Delivery, Queue
from prefactor_core.queue.executor import TaskExecutor
from prefactor_core.queue.memory import InMemoryQueue
from prefactor_core.runtime import build_runtime_environment
from prefactor_core.schema_registry import SchemaRegistry
from prefactor_core.span_context import SpanContext
from prefactor_core.utils import (
    generate_idempotency_key,
    validate_idempotency_key,
    warn_missing_adaptor_config,
)

__all__ = [
    "AgentInstance",
    "AgentInstanceHandle",
    "AgentInstanceManager",
    "ClientAlreadyInitializedError",
    "ClientClosedError",
    "ClientNotInitializedError",
    "ClientStats",
    "CloseSummary",
    "DeadLetter",
    "Delivery",
    "HttpClientConfig",
    "InMemoryQueue",
    "InstanceNotFoundError",
    "InvalidIdentifierError",
    "InvalidInputError",
    "InvalidPayloadError",
    "MissingDriverError",
    "Operation",
    "OperationError",
    "OperationType",
    "PrefactorCoreClient",
    "PrefactorCoreConfig",
    "PrefactorCoreError",
    "PrefactorTelemetryFailureError",
    "PrefactorTerminatedError",
    "Queue",
    "QueueClosedError",
    "QueueConfig",
    "SchemaRegistry",
    "Span",
    "SpanContext",
    "SpanContextStack",
    "SpanManager",
    "SpanNotFoundError",
    "TaskExecutor",
    "TransportError",
    "UnknownTransportError",
    "__version__",
    "build_runtime_environment",
    "generate_idempotency_key",
    "validate_idempotency_key",
    "warn_missing_adaptor_config",
]
