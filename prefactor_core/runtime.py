"""What the agent runs on, as the API records it with an agent's version."""

import platform
import sys
from typing import TypedDict

from prefactor_core._version import SDK_HEADER_ENTRY


class RuntimeEnvironment(TypedDict):
    """The API's ``runtime_environment``.

    Attributes:
        agent_sdk: The integrations in use, as ``name@version``.
        os: The operating system (``linux``, ``darwin``, ``win32``).
        prefactor_sdk: This SDK, as ``name@version``.
        runtime: The interpreter, as ``cpython@3.11``.
    """

    agent_sdk: list[str]
    os: str
    prefactor_sdk: list[str]
    runtime: str


def build_runtime_environment(sdk_header_entry: str | None = None) -> RuntimeEnvironment:
    """Describe this process, with the integrations (``name@version``, separated by blanks)."""
    implementation = platform.python_implementation().lower()
    return {
        "agent_sdk": sdk_header_entry.split() if sdk_header_entry else [],
        "os": sys.platform,
        "prefactor_sdk": [SDK_HEADER_ENTRY],
        "runtime": f"{implementation}@{sys.version_info.major}.{sys.version_info.minor}",
    }
