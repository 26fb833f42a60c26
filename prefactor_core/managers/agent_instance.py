"""The manager of instances: the recorder's calls, for asyncio."""

from prefactor_core.instance_handle import AgentInstanceHandle
from prefactor_core.recording.faces import awaited
from prefactor_core.recording.instances import InstanceRecorder

__all__ = ["AgentInstanceHandle", "AgentInstanceManager"]  # others import the handle from here


class AgentInstanceManager:
    """Records the instances of one client.

    Its methods are those of ``InstanceRecorder``, as coroutine functions, and its ``get``.
    """

    def __init__(self, recorder: InstanceRecorder) -> None:
        self.register = awaited(recorder.register)
        self.start = awaited(recorder.start)
        self.start_with_idempotency_key = awaited(recorder.start_with_idempotency_key)
        self.finish = awaited(recorder.finish)
        self.finish_with_idempotency_key = awaited(recorder.finish_with_idempotency_key)
        self.record_quality = awaited(recorder.record_quality)
        self.get = recorder.get
