"""`run` and `check` say when a URL asks for another number of partitions than the recorded one."""

import asyncio
import re

from prefactor_core.broker.options import DEFAULT_PARTITIONS
from tests.support.operations import life
from tests.support.ports import free_port
from tests.worker.commands import command, open_queue, publish

_WORDS = "partitions, and the 4 that are recorded count"


async def _warnings_of_run(url: str) -> list[str]:
    """Return the log lines about partitions of a worker that ends once everything is settled: at once."""
    done = await command(
        *("run", "--drain", "--metrics-port", "0", "--transport", url),
        *("--api-url", f"http://127.0.0.1:{free_port()}"),
        PREFACTOR_API_TOKEN="token",
    )
    assert done.status == 0, done.errors
    assert "everything is settled or dead-lettered" in done.errors
    return [line for line in done.errors.splitlines() if "asks for" in line]


async def test_run_warns_in_one_line(transport_url: str) -> None:
    async with open_queue(transport_url) as queue:
        left = len(operations := life("only"))
        await publish(queue, operations)
        while left:
            got = await queue.receive(100, 1 << 20)
            left -= len(got) - len(await queue.settle(got))
    option = re.compile(r"&?partitions=\d+")
    other, default = (
        option.sub(f"&partitions={number}", transport_url) for number in (8, DEFAULT_PARTITIONS)
    )
    of_other, of_default, of_same, of_none = await asyncio.gather(
        *map(_warnings_of_run, (other, default, transport_url, option.sub("", transport_url)))
    )
    (line,) = of_other
    assert f"the URL asks for 8 {_WORDS}" in line
    assert "WARNING" in line
    (line,) = of_default
    assert f"the URL asks for {DEFAULT_PARTITIONS} {_WORDS}" in line
    assert (of_same, of_none) == ([], [])
    checked = await command("check", "--transport", default)
    assert f"the URL asks for {DEFAULT_PARTITIONS} {_WORDS}" in checked.output
