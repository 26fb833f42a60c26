"""Names of ``PREFACTOR_*`` variables. A mistyped one sets nothing, and nobody would notice."""

import logging
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from prefactor_core.texts import name

logger = logging.getLogger("prefactor_core")

PREFIX: Final = "PREFACTOR_"

OF_WORKERS: Final = frozenset(
    {
        *("API_TOKEN", "API_TOKEN_FILE", "API_URL", "BATCH", "CONCURRENCY", "DRAIN", "GRACE", "LOG_FORMAT"),
        *("LOG_LEVEL", "MAX_RETRIES", "METRICS_HOST", "METRICS_PORT", "PROCESSES", "REQUEST_TIMEOUT"),
        "TRANSPORT_URL",
    }
)
"""Those of prefactor-worker, without the prefix: a file may hold an agent's and a worker's."""

_LONGEST_END: Final = 100
"""Characters of a name's end that are looked at."""
_OF_TESTS: Final = "TEST_"
_OF_KUBERNETES: Final = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)$")
"""What Kubernetes sets in every container for a service whose name begins like ours."""


def warn_of_unknown(given: Iterable[str], settings: Iterable[str]) -> None:
    """Log the names of variables with our prefix that set nothing, each once a call.

    Args:
        given: Names of all variables that are set, in any case.
        settings: Names of those that set something in an agent, without the prefix.
    """
    known = OF_WORKERS.union(one.upper() for one in settings)
    for full_name in sorted({one.upper() for one in given}):
        short = full_name.removeprefix(PREFIX)
        ours = short != full_name and not short.startswith(_OF_TESTS)
        if ours and short not in known and not _OF_KUBERNETES.search(short[-_LONGEST_END:]):
            _warn(full_name, *get_close_matches(short, known, n=1))


def _warn(full_name: str, nearest: str = "") -> None:
    question = f" (did you mean {PREFIX}{nearest}?)" if nearest else ""
    logger.warning("prefactor: %s is not a setting%s", name(full_name, "variable"), question)
