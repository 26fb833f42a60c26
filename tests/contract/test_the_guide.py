"""The examples of how to hold a transport to the contract run as they are printed."""

from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

import prefactor_core.testing
from tests.support.sqlite_example import install, outcomes

GUIDE: Final = Path(__file__).parents[2] / "docs" / "write-a-transport.md"
NEEDS_A_URL: Final = ["test_order_by_instance", "test_the_end_while_the_broker_is_unavailable"]
NEEDS_TO_SEE_WHAT_IS_LEFT: Final = ["test_clearing", "test_nothing_is_left"]


def example(text: str) -> str:
    """Return the only block of indented lines that subclasses the contract."""
    blocks = [""]
    for line in text.splitlines():
        if not line or line.startswith("    "):
            blocks[-1] += f"{line}\n"
        elif blocks[-1].strip():
            blocks.append("")
    (found,) = [block for block in blocks if "(TransportContract):" in block]
    return dedent(found)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (str(prefactor_core.testing.__doc__), NEEDS_A_URL),
        (GUIDE.read_text(), NEEDS_A_URL + NEEDS_TO_SEE_WHAT_IS_LEFT),
    ],
    ids=["the docstring", "the guide"],
)
def test_the_example_runs(text: str, names: list[str], tmp_path: Path) -> None:
    install(tmp_path)
    # Copied letter by letter, but for the scheme: the transport that is there is the example.
    found = outcomes(tmp_path, example(text).replace("mine://", "sqlite://"), names)
    assert {name: word for name, (word, _) in found.items()} == dict.fromkeys(names, "PASSED")
