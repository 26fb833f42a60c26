"""The seeds of a simulation: one test runs them all, and names the one that failed."""

from collections.abc import Iterator
from contextlib import contextmanager


class Seeds:
    """Seeds from 0, as many as the test wants, or the one of ``--seed``.

    Args:
        test: The test, as pytest names it.
        count: The number of ``--seeds``, in place of the test's own.
        only: The seed of ``--seed``.
    """

    def __init__(self, test: str, count: int | None = None, only: int | None = None) -> None:
        self._test = test
        self._count = count
        self._only = only

    def up_to(self, count: int) -> Iterator[int]:
        """Yield the seeds."""
        if self._only is not None:
            yield self._only
        else:
            yield from range(self._count or count)

    @contextmanager
    def replayed_by(self, seed: int) -> Iterator[None]:
        """Add to an error how to see it again."""
        try:
            yield
        except Exception as error:
            raise AssertionError(
                f"seed {seed} fails: {error!r}; again with: scripts/test '{self._test}' --seed {seed}"
            ) from error
