"""The one module that transports import from."""

import ast
from pathlib import Path

import pytest

import prefactor_core.transport

PROJECT = Path(__file__).parents[2]
EXPORTED = {
    # A broker: the interface, and what stands above it.
    "Broker",
    "BrokerOptions",
    "BrokerQueue",
    "ConsumingEnd",
    "DEFAULT_PARTITIONS",
    "DeadLetterEnd",
    "DeadLetterMessage",
    "End",
    "Fleet",
    "Lease",
    "Loss",
    "MAX_ATTEMPTS",
    "MAX_PARTITIONS",
    "Message",
    "Partition",
    "PartitionState",
    "PublishingEnd",
    "process_name",
    "split_options",
    # A queue of one's own.
    "DeadLetter",
    "Delivery",
    "Operation",
    "Published",
    "Queue",
    # Both: the hook and the errors.
    "BrokerError",
    "MissingDriverError",
    "PrefactorCoreConfig",
    "QueueClosedError",
    "TransportError",
    "hookimpl",
}


def test_exported_names() -> None:
    assert set(prefactor_core.transport.__all__) == EXPORTED
    missing = [name for name in EXPORTED if not hasattr(prefactor_core.transport, name)]
    assert missing == []


@pytest.mark.parametrize(
    "module", sorted((PROJECT / "examples" / "transport").rglob("*.py")), ids=lambda path: path.name
)
def test_the_example_imports_nothing_else(module: Path) -> None:
    imported = {
        node.module or ""
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    ours = {name for name in imported if name.startswith("prefactor_core")}
    assert ours <= {"prefactor_core.transport", "prefactor_core.testing"}
