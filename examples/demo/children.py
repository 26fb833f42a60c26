"""Child processes that never outlive their use. What they say is kept in files."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from signal import Signals
from typing import Any, Final, Self

_STOP_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 60.0


class DemoError(Exception):
    """The demo cannot go on; the message is for the person who runs it."""


class Child(subprocess.Popen[bytes]):
    """A Python process; its stdout goes to a file, its stderr to one beside it."""

    def __init__(
        self, name: str, output: Path, arguments: tuple[str, ...], variables: dict[str, str]
    ) -> None:
        self.name = name
        self.output = output
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFACTOR_")}
        with output.open("wb") as stdout, output.with_suffix(".err").open("wb") as stderr:
            # In a session of its own: a Ctrl-C is for the demo, which then ends its children itself.
            super().__init__(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=inherited | variables,
                start_new_session=True,
            )

    def last_line(self, of: str = "out") -> str:
        """Return the last whole line of its output, or ``of="err"``; empty before there is one."""
        whole, _, _ = self.output.with_suffix(f".{of}").read_text(errors="replace").rpartition("\n")
        return whole.rpartition("\n")[2]

    def check(self) -> bool:
        """Return whether it has ended well; raise ``DemoError`` if it has failed."""
        status = self.poll()
        if status:
            how = f"by {Signals(-status).name}" if status < 0 else f"with status {status}"
            raise DemoError(f"{self.name} ended {how}: {self.last_line('err')}")
        return status == 0


class Children:
    """Starts Python processes, with their files in ``folder``, and ends them at the end of a ``with``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []

    def start(self, name: str, *arguments: str, **variables: str) -> Child:
        """Start one. Of ``PREFACTOR_*`` variables it gets only those given here."""
        output = self.folder / f"{len(self._children)} {name}.out"
        self._children.append(Child(name, output, arguments, variables))
        return self._children[-1]

    def ask(self, command: str, *arguments: str, **variables: str) -> dict[str, Any]:
        """Run a command of the project to its end, and return the JSON that it prints."""
        child = self.start(command, "-m", command, *arguments, "--json", **variables)
        child.wait(_ANSWER_SECONDS)
        if not (output := child.output.read_text()):
            raise DemoError(child.last_line("err"))
        answer: dict[str, Any] = json.loads(output)
        return answer

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End those that still run with SIGTERM; with SIGKILL after ten seconds, or at a second Ctrl-C."""
        deadline = time.monotonic() + _STOP_SECONDS
        try:
            for child in self._children:
                child.terminate()
            for child in self._children:
                child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass  # the next lines see to those that are left
        finally:
            for child in self._children:
                child.kill()
                child.wait()
