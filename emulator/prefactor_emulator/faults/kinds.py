"""The faults that can be had. A new one is one small class beside its like, and its name here."""

from types import MappingProxyType
from typing import Final

from prefactor_emulator.faults.fault import FaultKinds
from prefactor_emulator.faults.operation_faults import Reject, Terminate
from prefactor_emulator.faults.request_faults import (
    Away,
    BadToken,
    Error,
    ForgetKeys,
    HtmlErrors,
    Latency,
    LostReply,
    NoBulk,
    SlowBody,
    Throttle,
)

_KINDS = (
    Latency,
    Error,
    Throttle,
    LostReply,
    SlowBody,
    Away,
    BadToken,
    NoBulk,
    HtmlErrors,
    Reject,
    Terminate,
    ForgetKeys,
)

FAULT_KINDS: Final[FaultKinds] = MappingProxyType({kind.name: kind for kind in _KINDS})
