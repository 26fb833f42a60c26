"""The faults that can be had, and how the description of one is read.

A new one is one small class beside its like, and its name here.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from prefactor_emulator.faults import operation_faults, request_faults
from prefactor_emulator.faults.fault import Fault

FAULT_KINDS: Final[Mapping[str, type[Fault]]] = {
    "latency": request_faults.Latency,
    "error": request_faults.Error,
    "throttle": request_faults.Throttle,
    "lost-reply": request_faults.LostReply,
    "slow-body": request_faults.SlowBody,
    "away": request_faults.Away,
    "bad-token": request_faults.BadToken,
    "no-bulk": request_faults.NoBulk,
    "html-errors": request_faults.HtmlErrors,
    "reject": operation_faults.Reject,
    "terminate": operation_faults.Terminate,
    "forget-keys": request_faults.ForgetKeys,
}


class FaultSpecError(ValueError):
    """A fault is described wrongly; the message is one line that says how to describe it."""


def parse_fault(spec: str) -> Fault:
    """Read a description like `throttle:rate=0.05,retry_after=1`.

    Raises:
        FaultSpecError: There is no such fault, or its options are wrong.
    """
    name, _, text = spec.partition(":")
    kind = FAULT_KINDS.get(name)
    if kind is None:
        raise FaultSpecError(f"{spec!r}: there is no fault {name!r}; there are {', '.join(FAULT_KINDS)}")
    try:
        return kind.model_validate(_options(text))
    except ValidationError as error:
        complaint = _complaint(name, kind, error)
    except FaultSpecError as error:
        complaint = str(error)
    raise FaultSpecError(f"{spec!r}: {complaint}")


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        option, equals, value = pair.partition("=")
        if not equals or not option:
            raise FaultSpecError(f"{pair!r} is not of the form key=value")
        if option in options:
            raise FaultSpecError(f"{option!r} is given twice")
        options[option] = value
    return options


def _complaint(name: str, kind: type[Fault], error: ValidationError) -> str:
    first = error.errors()[0]
    option = first["loc"][0]
    known = {field.alias or attribute: field for attribute, field in kind.model_fields.items()}
    if option not in known:
        return f"fault {name!r} has no option {option}; it has {', '.join(known)}"
    return f"{option} must be {known[option].description}, not {first['input']!r}"
