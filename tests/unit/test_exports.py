"""The names that others import."""

import importlib

import prefactor_core.transport
from prefactor_core._version import PACKAGE_NAME, PACKAGE_VERSION
from prefactor_core.client import CORE_SDK_HEADER_ENTRY

PUBLISHED = """
    AgentInstance AgentInstanceHandle ClientAlreadyInitializedError ClientNotInitializedError
    HttpClientConfig InMemoryQueue InstanceNotFoundError Operation OperationError OperationType
    PrefactorCoreClient PrefactorCoreConfig PrefactorCoreError PrefactorTelemetryFailureError
    PrefactorTerminatedError Queue QueueClosedError QueueConfig SchemaRegistry Span SpanContext
    SpanContextStack SpanNotFoundError TaskExecutor __version__ build_runtime_environment
    generate_idempotency_key validate_idempotency_key warn_missing_adaptor_config
"""
OURS = """
    AgentInstanceManager ClientClosedError ClientStats CloseSummary DeadLetter Delivery
    InvalidIdentifierError InvalidInputError InvalidPayloadError MissingDriverError SpanManager
    TransportError UnknownTransportError
"""
TRANSPORT = """
    BrokerError BrokerOptions BrokerQueue ConsumingEnd DEFAULT_PARTITIONS DeadLetterEnd
    DeadLetterMessage DeadLetter DirectQueue Broker End Fleet Lease Loss MAX_ATTEMPTS MAX_PARTITIONS Message
    Partition PartitionState PublishingEnd process_name split_options Delivery Operation Published Queue
    MissingDriverError Outage PrefactorCoreConfig QueueClosedError RetryPolicy TransportError hookimpl
"""

MODULES = {
    "_version": ["PACKAGE_NAME", "PACKAGE_VERSION", "__version__"],
    "client": ["CORE_SDK_HEADER_ENTRY", "PrefactorCoreClient"],
    "config": ["HttpClientConfig", "PrefactorCoreConfig", "QueueConfig"],
    "monitoring.termination_monitor": ["TerminationMonitor"],
    "context_stack": ["SpanContextStack"],
    "exceptions": ["PrefactorCoreError", "SpanNotFoundError"],
    "managers": ["AgentInstanceHandle", "AgentInstanceManager", "SpanManager"],
    "managers.agent_instance": ["AgentInstanceHandle", "AgentInstanceManager"],
    "managers.span": ["SpanManager"],
    "models": ["AgentInstance", "Span"],
    "operations": ["Operation", "OperationType"],
    "queue": ["InMemoryQueue", "Queue", "QueueClosedError", "TaskExecutor"],
    "queue.base": ["Queue", "QueueClosedError"],
    "queue.executor": ["TaskExecutor"],
    "queue.memory": ["InMemoryQueue"],
    "runtime": ["build_runtime_environment"],
    "schema_registry": ["SchemaRegistry"],
    "span_context": ["SpanContext"],
    "utils": ["generate_idempotency_key", "validate_idempotency_key", "warn_missing_adaptor_config"],
}


def test_the_package_and_what_transports_import_from_export_exactly_this() -> None:
    for module, names in ((prefactor_core, PUBLISHED + OURS), (prefactor_core.transport, TRANSPORT)):
        assert sorted(module.__all__) == sorted(names.split())
        for name in module.__all__:
            assert getattr(module, name) is not None


def test_the_modules_that_others_import_from() -> None:
    for module, names in MODULES.items():
        imported = importlib.import_module(f"prefactor_core.{module}")
        for name in names:
            here = getattr(imported, name)
            assert getattr(prefactor_core, name, here) is here, f"{module}.{name}"


def test_the_header_entry_carries_the_version() -> None:
    assert f"{PACKAGE_NAME}@{PACKAGE_VERSION}" == CORE_SDK_HEADER_ENTRY
    assert f"prefactor-core@{prefactor_core.__version__}" == CORE_SDK_HEADER_ENTRY
    major = int(prefactor_core.__version__.partition(".")[0])
    assert major >= 1, "published integrations ask for >= 0.5.3"
