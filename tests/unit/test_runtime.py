"""What the agent runs on."""

import platform
import sys

import pytest

from prefactor_core import __version__, build_runtime_environment


@pytest.mark.parametrize(
    ("entry", "agent_sdk"),
    [
        (None, []),
        ("", []),
        ("prefactor-langchain@0.3.0", ["prefactor-langchain@0.3.0"]),
        ("  a@1  b@2 ", ["a@1", "b@2"]),
        ("a@1 prefactor-core@0.5.3", ["a@1"]),
    ],
)
def test_the_shape_is_the_apis(entry: str | None, agent_sdk: list[str]) -> None:
    major, minor, _ = platform.python_version_tuple()
    assert build_runtime_environment(entry) == {
        "agent_sdk": agent_sdk,
        "os": sys.platform,
        "prefactor_sdk": [f"prefactor-core@{__version__}"],
        "runtime": f"{sys.implementation.name}@{major}.{minor}",
    }


def test_windows_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert build_runtime_environment()["os"] == "windows"
