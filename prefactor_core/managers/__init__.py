"""The managers turn calls on instances and spans into operations."""

from prefactor_core.managers.agent_instance import AgentInstanceHandle, AgentInstanceManager
from prefactor_core.managers.span import SpanManager

__all__ = ["AgentInstanceHandle", "AgentInstanceManager", "SpanManager"]
