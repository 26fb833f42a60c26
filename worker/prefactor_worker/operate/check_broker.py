"""What is wrong with a broker, and who uses it; with ``--strict``, also whether its fleet keeps up."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from prefactor_core.broker.driver import Broker
from prefactor_core.broker.options import DEFAULT_PARTITIONS
from prefactor_core.exceptions import BrokerError
from prefactor_worker.broker import disagreement
from prefactor_worker.operate.findings import Finding, Findings, Level, is_well
from prefactor_worker.operate.look import FleetReader, Look
from prefactor_worker.operate.words import count, duration
from prefactor_worker.options import TRANSPORT_VARIABLE

_ONLY_WARNINGS: Final = ("appendonly is no", "its settings cannot be checked", "is missing, with what")
"""Words of what a broker finds wrong with itself under which a fleet works: some live with it on purpose."""


DEFAULT_MAX_AGE: Final = 300.0
DEFAULT_MAX_BACKLOG: Final = 10_000
"""Where the broker tells no age."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a backlog is a problem.

    Attributes:
        max_age: Seconds that the oldest operation may have waited.
        max_backlog: How many operations may wait; ``None`` for any number, where the broker tells their age.
    """

    max_age: float = DEFAULT_MAX_AGE
    max_backlog: int | None = None


async def check_broker(broker: Broker | None, asked: int | None, limits: Limits | None) -> list[Finding]:
    """Connect to a broker, if one is given, and return what is found.

    ``asked`` is the number of partitions that its URL asks for, if it does. With ``limits`` a backlog beyond
    them is a problem, and so is a fleet without a worker.
    """
    findings = Findings("broker")
    if broker is None:
        missing = f"a broker: name one with --transport, or set {TRANSPORT_VARIABLE}"
        findings.add(Level.NOT_GIVEN, missing)
        return findings.all
    try:
        problems = await broker.check()
    except BrokerError as error:
        findings.problem(f"{str(error).rstrip('. ')}. Nothing more of it could be checked")
        return findings.all
    findings.ok(f"connected to {broker.name}")
    for problem in problems:
        if any(words in problem for words in _ONLY_WARNINGS):
            findings.warn(problem)
        else:
            findings.problem(problem)
    if is_well(findings.all):
        rest = "the rest of its settings" if problems else "its settings"
        findings.ok(f"its version, {rest} and this user's permissions are as they have to be")
    try:
        async with aclosing(FleetReader(broker)) as reader:
            look = await reader.look()
        _add_use(findings, look, asked)
        if limits is not None:
            judge(findings, look, limits)
    except BrokerError as error:
        findings.problem(f"the partitions cannot be read: {error}")
    return findings.all


def _add_use(findings: Findings, look: Look, asked: int | None) -> None:
    partitions = len(look.rows)
    if not partitions:
        findings.ok(
            "partitions: none recorded yet; the first process that uses the broker makes "
            f"{DEFAULT_PARTITIONS if asked is None else asked}"
        )
        return
    findings.ok(f"partitions: {partitions} are recorded, which is also how many workers can share the work")
    if (problem := disagreement(asked, partitions)) is not None:
        findings.warn(f"partitions: {problem}")
    _add_fleet(findings, look)
    if look.dead:
        findings.warn(f"dead letters: {look.dead:,}; `prefactor-worker dead-letters list` tells why")
    else:
        findings.ok("dead letters: none")


def _add_fleet(findings: Findings, look: Look) -> None:
    waiting = count(look.backlog, "operation") + (" waits" if look.backlog == 1 else " wait")
    if look.oldest is not None:
        waiting += f", the oldest for {duration(look.oldest)}"
    free = len(look.rows) - look.owned
    if free == len(look.rows):
        findings.warn(f"workers: none is there, and {waiting}; start one with `prefactor-worker run`")
    elif free:
        findings.warn(
            f"workers: {count(free, 'partition')} without an owner; that is right for some seconds after a "
            f"worker came or went ({waiting})"
        )
    else:
        who = "every partition has an owner" if look.workers is None else count(look.workers, "worker")
        findings.ok(f"workers: {who}; {waiting}")


def judge(findings: Findings, look: Look, limits: Limits) -> None:
    """Add what is a problem for a monitor: no worker, or a backlog that is too old or too long."""
    if not look.owned:
        findings.problem("strict: no worker owns a partition")
    if look.oldest is not None and look.oldest > limits.max_age:
        findings.problem(
            f"strict: the oldest operation has waited for {duration(look.oldest)}; the limit is "
            f"{duration(limits.max_age)}"
        )
    ageless = any(row.state.backlog and row.age is None for row in look.rows)  # as RabbitMQ has it
    most = DEFAULT_MAX_BACKLOG if ageless and limits.max_backlog is None else limits.max_backlog
    if most is not None and look.backlog > most:
        findings.problem(f"strict: {count(look.backlog, 'operation')} in the backlog; the limit is {most:,}")
    elif ageless:
        findings.ok(
            "strict: this broker does not tell how old its backlog is, so its length was judged: "
            f"{look.backlog:,} of at most {most:,}; --max-backlog changes the limit"
        )
