"""An agent without an event loop: ``python -m tests.support.sync_program URL HOW [OPTIONS AS JSON]``.

It records one instance of five spans, three of them nested, and ends as it is told; forks before that, maybe.
Each process of it ends with a line of JSON: its account.
"""

import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
from typing import Any

from prefactor_core import HttpClientConfig, PrefactorCoreConfig
from prefactor_core.sync import AgentInstanceHandle, PrefactorCoreClient

VERSION = {"name": "sync-program", "external_identifier": "1"}
SCHEMAS = {"external_identifier": "sync-1", "span_schemas": {"t:outer": {"type": "object"}, "t:inner": {}}}
OPERATIONS = 13
"""What one life puts."""


def life(client: PrefactorCoreClient) -> None:
    """Record an instance."""
    with client.create_agent_instance(agent_version=VERSION, agent_schema_version=SCHEMAS) as instance:
        instance.start()
        for _ in range(2):
            nested(instance)
        instance.finish_span(instance.create_span("t:outer"))


def nested(instance: AgentInstanceHandle) -> None:
    """Record a span in a span."""
    with instance.span("t:outer", payload={"question": "what?"}) as outer:
        outer.start()
        with instance.span("t:inner") as inner:
            inner.start()
            inner.set_result({"answer": "that"})


def say(client: PrefactorCoreClient) -> None:
    """Print the account, in one piece."""
    os.write(1, json.dumps({"put": client.stats().put}).encode() + b"\n")


def forking(client: PrefactorCoreClient, children: int) -> None:
    """Fork while other threads record; each child records, too, and ends as a process does."""
    over = threading.Event()

    def record() -> None:
        while not over.wait(0.02):
            life(client)

    threads = [threading.Thread(target=record) for _ in range(3)]
    for thread in threads:
        thread.start()
    pids: list[int] = []
    for _ in range(children):
        life(client)
        pid = os.fork()
        if pid == 0:
            gc.collect()
            for _ in range(3):
                life(client)
            say(client)
            sys.exit(0)
        pids.append(pid)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"a child ended with {status}")
    over.set()
    for thread in threads:
        thread.join()


def main(url: str, how: str, options: dict[str, Any]) -> None:
    """Record, and end."""
    http = HttpClientConfig(api_url=url, api_token="token")
    client = PrefactorCoreClient(PrefactorCoreConfig(http_config=http, **options))
    client.initialize()
    if how == "forking":
        forking(client, 10)
    elif how == "multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=life, args=(client,))
        child.start()
        child.join()
        life(client)
    else:
        life(client)
    say(client)
    if how == "closed":
        client.close()
    elif how == "raising":
        raise RuntimeError("an error of the agent's own")
    elif how == "terminated":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
