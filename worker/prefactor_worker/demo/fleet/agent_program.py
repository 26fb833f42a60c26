"""An agent's process: ``python -m prefactor_worker.demo.fleet.agent_program JOB``.

It publishes to the transport in ``PREFACTOR_TRANSPORT_URL`` and has no token. It writes a line of JSON for
each bit of progress, and a report at its end.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import IO, Final

from prefactor_core import Operation, PrefactorCoreClient, PrefactorCoreConfig
from prefactor_core.broker.buffer import BufferBounds
from prefactor_core.broker.queue import BrokerQueue
from prefactor_core.plugins import create_queue
from prefactor_worker.demo.agent import (
    AGENT_VERSION,
    NothingReadableError,
    answer_question,
    schema_registry,
)
from prefactor_worker.demo.fleet.jobs import Job, Progress, Report
from prefactor_worker.demo.meter import Meter
from prefactor_worker.demo.outcome import AgentRun
from prefactor_worker.run.command import TRANSPORT_VARIABLE

_AGENTS_AT_ONCE: Final = 8
_PROGRESS_SECONDS: Final = 0.1


class RecordingQueue(BrokerQueue):
    """A queue to a broker that remembers every put, for the checker.

    Args:
        config: Names the broker.
    """

    def __init__(self, config: PrefactorCoreConfig) -> None:
        queue = create_queue(config.transport_url, config)
        if not isinstance(queue, BrokerQueue):
            raise TypeError("the transport is no broker")
        bounds = BufferBounds(config.buffer_operations, config.buffer_bytes, config.buffer_policy)
        super().__init__(queue.broker, bounds)
        self._puts: list[Operation] = []

    async def put(self, item: Operation) -> None:
        """Take an operation. One that is dropped later was put all the same: to the checker it is lost."""
        await super().put(item)
        self._puts.append(item)

    def write_puts(self, to: IO[str]) -> None:
        """Write down what was put, as the checker reads it."""
        for put in self._puts:
            line = {"instance_id": put.instance_id, "type": put.type.value, "key": put.idempotency_key}
            to.write(json.dumps(line) + "\n")


class Asker:
    """Asks the questions of a job, one after the other, whether the earlier ones are answered or not.

    Args:
        client: Takes the telemetry.
        job: What to do.
    """

    def __init__(self, client: PrefactorCoreClient, job: Job) -> None:
        self._client = client
        self._job = job
        self._at_once = asyncio.Semaphore(_AGENTS_AT_ONCE)
        self._answered = 0
        self.meter = Meter()
        self.working = 0.0
        """Seconds that the agents took, added up."""

    async def ask_all(self) -> list[AgentRun]:
        """Ask all questions, and return what came of them, in their order."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for number, question in enumerate(self._job.questions):
                await asyncio.sleep(began + number * self._job.interval - loop.time())
                tasks.append(group.create_task(self._ask(question)))
        return [task.result() for task in tasks]

    async def _ask(self, question: str) -> AgentRun:
        async with self._at_once:
            began = perf_counter()
            request = self.meter.instance(self._client, AGENT_VERSION)
            try:
                async with request as instance:
                    sentences = await answer_question(instance, question, self._job.files)
            except NothingReadableError as error:
                return AgentRun(question, request.handle.id, failure=str(error))
            finally:
                self._answered += 1
                self.working += perf_counter() - began
            return AgentRun(question, instance.handle.id, sentences)

    async def tell(self) -> None:
        """Tell of the progress, for ever."""
        while True:
            self.tell_once()
            await asyncio.sleep(_PROGRESS_SECONDS)

    def tell_once(self) -> None:
        """Tell how far it is."""
        stats = self._client.stats()
        progress = Progress(answered=self._answered, put=stats.put, confirmed=stats.delivered)
        sys.stdout.write(progress.model_dump_json() + "\n")
        sys.stdout.flush()


async def work(job: Job, transport: str) -> Report:
    """Do a job.

    Args:
        job: What to do.
        transport: Where the telemetry goes.
    """
    config = PrefactorCoreConfig(transport_url=transport, schema_registry=schema_registry())
    queue = RecordingQueue(config)
    async with PrefactorCoreClient(config, queue) as client:
        asker = Asker(client, job)
        telling = asyncio.create_task(asker.tell(), name="tell")
        try:
            runs = await asker.ask_all()
        finally:
            telling.cancel()
        asker.tell_once()
        summary = await client.close()
    with job.puts.open("w") as puts:
        queue.write_puts(puts)
    return Report(
        runs=runs,
        summary=summary,
        working=asker.working,
        span_seconds=asker.meter.span_seconds,
        instance_seconds=asker.meter.instance_seconds,
    )


def main() -> None:
    """Read the job, do it, and write the report."""
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    report = asyncio.run(work(job, os.environ[TRANSPORT_VARIABLE]))
    job.report.write_text(report.model_dump_json())


if __name__ == "__main__":
    main()
