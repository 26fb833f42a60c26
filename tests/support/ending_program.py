"""An agent that ends in one of many ways, mostly without closing its client.

``python -m tests.support.ending_program URL ENDING PUTS`` puts so many operations to the transport, and ends.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from prefactor_core import HttpClientConfig, PrefactorCoreClient, PrefactorCoreConfig, SchemaRegistry

_VERSION: Final = {"name": "ending", "external_identifier": "1"}


async def _returns() -> None:
    pass


async def _raises() -> None:
    raise ValueError("the agent's own")


async def _exits() -> None:
    sys.exit(3)


async def _is_interrupted() -> None:
    raise KeyboardInterrupt


async def _gets_a_signal() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(60)


async def _exits_in_a_task() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_exits())
        await asyncio.sleep(60)


async def _exits_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(60)


ENDINGS: Final[dict[str, Callable[[], Awaitable[None]]]] = {
    "return": _returns,
    "exception": _raises,
    "SystemExit": _exits,
    "KeyboardInterrupt": _is_interrupted,
    "SIGINT": _gets_a_signal,
    "exit-in-task": _exits_in_a_task,
    "exit-in-callback": _exits_in_a_callback,
}


async def _put(client: PrefactorCoreClient, puts: int) -> None:
    for _ in range(puts):
        await client.create_agent_instance(agent_version=_VERSION)


async def _agent(options: argparse.Namespace) -> None:
    client = PrefactorCoreClient(
        PrefactorCoreConfig(
            transport_url=options.url,
            http_config=HttpClientConfig(api_url=options.api, api_token="t"),
            schema_registry=SchemaRegistry(),
            close_timeout=0.2,
        )
    )
    if options.entered:
        async with client:
            await _put(client, options.puts)
            await ENDINGS[options.ending]()
        return
    await client.initialize()
    await _put(client, options.puts)
    if options.flush and not await client.flush(30):
        raise TimeoutError("what was put did not arrive")
    if options.pause:
        await asyncio.sleep(options.pause)
    await ENDINGS[options.ending]()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("ending", choices=ENDINGS)
    parser.add_argument("puts", type=int)
    parser.add_argument("--api", default="http://127.0.0.1:9")
    parser.add_argument("--pause", type=float, default=0, help="seconds between the last put and the end")
    parser.add_argument("--flush", action="store_true", help="end when everything is delivered")
    parser.add_argument("--entered", action="store_true", help="use the client with 'async with'")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Started in the background of a shell, a process would ignore the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(_agent(parser.parse_args()))


if __name__ == "__main__":
    main()
