"""The README's agents work as pasted."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.support.emulator import running_emulator

README = Path(__file__).parents[2] / "README.md"


BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("face", ["asyncio", "sync"])
async def test_the_first_agent_of_either_face_works_as_pasted(tmp_path: Path, face: str) -> None:
    first, second = BLOCKS
    configuration, _, _ = first.partition("async def main()")
    agent = first if face == "asyncio" else configuration + second
    async with running_emulator(tmp_path) as emulator:
        assert "http://127.0.0.1:8700" in agent
        script = tmp_path / "agent.py"
        script.write_text(agent.replace("http://127.0.0.1:8700", emulator.url))
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, output) == (0, b"")
        effects = await emulator.effects()
        found = await emulator.instance(effects[0]["instance_id"])
        assert found["status"] == "complete"
        (span,) = found["spans"]
        assert (span["payload"], span["result_payload"]) == ({"prompt": "Hi"}, {"response": "Hello!"})


def test_it_names_both_commands() -> None:
    lines = README.read_text().splitlines()
    for command in ("scripts/demo", "scripts/test"):
        assert any(line.startswith(f"    {command}") for line in lines), command
        assert (README.parent / command).is_file()
