"""The seeds of a simulation: one test runs them all, and names the one that failed."""

from collections.abc import Callable


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

    def run(self, count: int, test: Callable[[int], object]) -> None:
        """Call ``test`` with so many seeds, or as the options say; an error says how to see it again."""
        for seed in range(self._count or count) if self._only is None else [self._only]:
            try:
                test(seed)
            except Exception as error:
                raise AssertionError(
                    f"seed {seed} fails: {error!r}; again with: scripts/test '{self._test}' --seed {seed}"
                ) from error
