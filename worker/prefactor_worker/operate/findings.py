"""What `check` finds, one line each."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_GIVEN = "not given"


class Finding(NamedTuple):
    """One thing that was found about ``broker`` or ``API``, and what to do about it, in plain words."""

    about: str
    level: Level
    text: str


class Findings:
    """Collects what is found about one thing: ``broker`` or ``API``."""

    def __init__(self, about: str) -> None:
        self._about = about
        self.all: list[Finding] = []

    def ok(self, text: str) -> None:
        """Note what is as it should be."""
        self.add(Level.OK, text)

    def warn(self, text: str) -> None:
        """Note what works, and deserves a look."""
        self.add(Level.WARNING, text)

    def problem(self, text: str) -> None:
        """Note what has to be mended."""
        self.add(Level.PROBLEM, text)

    def add(self, level: Level, text: str) -> None:
        """Note something, on one line."""
        self.all.append(Finding(self._about, level, " ".join(text.split())))


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing is worse than a warning."""
    return all(finding.level is not Level.PROBLEM for finding in findings)
