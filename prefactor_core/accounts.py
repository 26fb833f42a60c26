"""Accounts of operations: what an executor and a client say of what they were given."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ExecutorAccount:
    """Where every delivery went.

    ``received = settled + superseded + dead_lettered + released + prefetched``, always.

    Attributes:
        received: Deliveries taken from the queue.
        settled: Those whose effect has happened.
        overtaken_by_type: Of ``settled``, by operation type: those whose effect an earlier attempt had had,
            and finishes of what the service had closed itself, as it does when it terminates an instance.
        superseded_by_type: Those that the API refused since their instance is terminated, and the spans and
            finishes that need those, by operation type.
        dead_lettered: Those that will not be retried.
        released: Those that were another process's by then, or went back at a stop or a failure.
        retried_by_type: How often deliveries went back into their lanes since something went wrong, by
            operation type: what failed itself, and what was sent behind it in its lane.
    """

    received: int = 0
    settled: int = 0
    overtaken_by_type: Counter[str] = field(default_factory=Counter)
    superseded_by_type: Counter[str] = field(default_factory=Counter)
    dead_lettered: int = 0
    released: int = 0
    retried_by_type: Counter[str] = field(default_factory=Counter)

    @property
    def overtaken(self) -> int:
        """The total of ``overtaken_by_type``."""
        return self.overtaken_by_type.total()

    @property
    def superseded(self) -> int:
        """The total of ``superseded_by_type``."""
        return self.superseded_by_type.total()

    @property
    def retried(self) -> int:
        """The total of ``retried_by_type``."""
        return self.retried_by_type.total()


@dataclass(frozen=True, slots=True)
class CloseSummary:
    """What became of everything that was put.

    ``put = delivered + superseded + dead_lettered + dropped + left``, with the totals of those by type.

    Attributes:
        put: Operations that the calls on this client made.
        delivered: Those whose effect has happened at the API; with a broker, those that it has confirmed.
        dead_lettered: Those that the API will not take; each was logged with its reason.
        dropped: Those that did not fit into the buffer, by type; under ``discarded``, those that were dropped
            because the API refused the token.
        left: Those that were not delivered in time.
        unconfirmed: Of ``left``, those that were sent to a broker without an answer; they may have arrived.
        overtaken, superseded: As in ``ExecutorAccount``, the one of ``delivered``, the other by type. With a
            broker, workers know them.
    """

    put: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    left: int = 0
    unconfirmed: int = 0
    overtaken: int = 0
    superseded: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether everything was delivered, but for what the service does not want."""
        return self.delivered + sum(self.superseded.values()) == self.put

    def in_words(self) -> str:
        """Return the summary in words, with what became of the others if not everything was delivered."""
        words = f"{self.delivered} of {self.put} operations delivered"
        if self.superseded:
            words += f", {sum(self.superseded.values())} superseded"
        if self.complete:
            return words
        return (
            f"{words}: {self.dead_lettered} dead-lettered, {sum(self.dropped.values())} dropped, "
            f"{self.left} left, {self.unconfirmed} of those sent without an answer"
        )


@dataclass(frozen=True, slots=True)
class ClientStats:
    """Where everything that was put is now.

    ``put = delivered + superseded + dead_lettered + dropped + buffered + sending``, always. All but the last
    two are as in ``CloseSummary``.

    Attributes:
        buffered: Those that wait in the queue.
        sending: Those that the executor has: in flight, or waiting for another attempt; with a broker, those
            that were sent and are not confirmed.
        retried: As in ``ExecutorAccount``; one operation may count several times.
        open_spans: Spans that were opened by this client and are not finished.
    """

    put: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    buffered: int = 0
    sending: int = 0
    retried: int = 0
    open_spans: int = 0
    overtaken: int = 0
    superseded: dict[str, int] = field(default_factory=dict)
