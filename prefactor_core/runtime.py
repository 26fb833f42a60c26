"""What the agent runs on, as the API records it with an agent's version."""

import platform
import sys
from typing import TypedDict

from prefactor_core._version import PACKAGE_NAME, SDK_HEADER_ENTRY


class RuntimeEnvironment(TypedDict):
    """The API's ``runtime_environment``.

    Attributes:
        agent_sdk: The integrations in use, as ``name@version``.
        os: The operating system (``linux``, ``darwin``, ``windows``).
        prefactor_sdk: This SDK, as ``name@version``.
        runtime: The interpreter, as ``cpython@3.11``.
    """

    agent_sdk: list[str]
    os: str
    prefactor_sdk: list[str]
    runtime: str


def build_runtime_environment(sdk_header_entry: str | None = None) -> RuntimeEnvironment:
    """Describe this process, with the integrations that ``sdk_header_entry`` names.

    It holds ``name@version``, separated by blanks; an entry of this SDK's own is left out.
    """
    named = (sdk_header_entry or "").split()
    implementation = platform.python_implementation().lower()
    return {
        "agent_sdk": [entry for entry in named if entry.partition("@")[0] != PACKAGE_NAME],
        "os": platform.system().lower(),
        "prefactor_sdk": [SDK_HEADER_ENTRY],
        "runtime": f"{implementation}@{sys.version_info.major}.{sys.version_info.minor}",
    }
