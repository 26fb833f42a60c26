"""What became of one delivery, as a handler tells it to the executor."""

from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Settled:
    """The effect has happened; if ``overtaken``, before this attempt, or by the service itself."""

    overtaken: bool = False


@dataclass(frozen=True, slots=True)
class Superseded:
    """It was refused, and its effect is not wanted any more: its instance is terminated.

    A span that is superseded takes along the later spans of its instance, and its own finish.
    """


@dataclass(frozen=True, slots=True)
class NotReached:
    """It was in the request, but was not reached. It goes out again at once."""


@dataclass(frozen=True, slots=True)
class Later:
    """It was not handled: it has to wait a moment, and what is behind it in its lane too."""


@dataclass(frozen=True, slots=True)
class Apart:
    """To be retried at once, with fewer others.

    The request was too large, or the reply to this item did not say enough.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Not known to have happened: to be retried later.

    Attributes:
        reason: What went wrong, for logs and dead letters.
        weight: How much this speaks against the items themselves, as a part of one attempt: 1 if what the
            handler calls otherwise works, 0 if it is unavailable or throttles.
        retry_after: Seconds to wait at least.
        attempt: Whether the item was sent, or answered, by itself: nothing that was handed over with it has a
            part in this.
    """

    reason: str
    weight: float = 1.0
    retry_after: float = 0.0
    attempt: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """It will never be taken.

    Attributes:
        reason: Why.
        reply: What the API answered.
        fatal: Whether its dependents are lost with it.
        whole: Whether its whole instance is lost with it: no operation of it can be taken.
        spans: Whether every later span of its instance is lost with it.
        rejected: Whether that is only what the API says. Many rejections without a success in between are
            not believed (see ``credit``).
        sent: Whether that became known by sending it, which makes it an attempt.
    """

    reason: str
    reply: str | None = None
    fatal: bool = True
    whole: bool = False
    spans: bool = False
    rejected: bool = False
    sent: bool = True


Outcome: TypeAlias = Settled | Superseded | NotReached | Later | Apart | Retry | Dead

SETTLED: Final = Settled()
OVERTAKEN: Final = Settled(overtaken=True)
SUPERSEDED: Final = Superseded()
NOT_REACHED: Final = NotReached()
LATER: Final = Later()
FOLLOWS: Final = "follows a lost operation: "
"""How the reason of a dead letter begins that goes with another one, before the reason of that."""
INSTANCE_OVER: Final = "the instance is over"
"""How the reason of a dead letter begins that the API refused since its instance takes nothing any more."""
