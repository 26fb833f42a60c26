"""The agents' program: ``python agents.py JOB``.

It is the same whether it sends to the API or publishes to a broker: ``PREFACTOR_*`` variables say where to.
It prints a line of JSON for each bit of progress, and leaves what came of it beside the job.
"""

import asyncio
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from pydantic import BaseModel

from agent import VERSION, MeteredInstance, answer_question, schema_registry
from library import Sentence
from prefactor_core import CloseSummary, Operation, PrefactorCoreClient, PrefactorCoreConfig, Queue
from prefactor_core.plugins import create_queue
from prefactor_core.transport import DirectQueue

_AGENTS_AT_ONCE: Final = 8
_PROGRESS_SECONDS: Final = 0.2


class Job(BaseModel):
    """What the agents are told: what to read, and what to ask, one question every ``interval`` seconds."""

    questions: list[str]
    files: list[Path]
    interval: float


class Answer(BaseModel):
    """What came of one question, and the agent instance that recorded it."""

    question: str
    instance_id: str
    sentences: list[Sentence]


class Work(BaseModel):
    """What came of a job, with the seconds that the agents took, and of that the SDK for each span."""

    answers: list[Answer] = []
    summary: CloseSummary = CloseSummary()
    working: float = 0.0
    span_costs: list[float] = []


async def work_on(job: Job, config: PrefactorCoreConfig, puts: list[Operation]) -> Work:
    """Do a job, and list all operations put."""
    work = Work()
    # An agent needs no queue of its own: this one keeps the list, for the proof at the end.
    async with PrefactorCoreClient(config, _recorded_queue(config, puts)) as client:
        asking = asyncio.create_task(_ask_all(client, job, work))
        while not (await asyncio.wait([asking], timeout=_PROGRESS_SECONDS))[0]:
            stats = client.stats()
            _tell(work, stats.put, stats.delivered)
        await asking
        work.summary = await client.close()  # delivers what is left
    _tell(work, work.summary.put, work.summary.delivered)
    return work


async def _ask_all(client: PrefactorCoreClient, job: Job, work: Work) -> None:
    at_once = asyncio.Semaphore(_AGENTS_AT_ONCE)

    async def ask(question: str) -> None:
        async with at_once:
            began = perf_counter()
            # A run of an agent is an instance. It ends with the block: as failed, if that raises.
            async with client.create_agent_instance(agent_version=VERSION) as instance:
                await instance.start()
                metered = MeteredInstance(instance, work.span_costs)
                sentences = await answer_question(metered, question, job.files)
            work.working += perf_counter() - began
            work.answers.append(Answer(question=question, instance_id=instance.id, sentences=sentences))

    async with asyncio.TaskGroup() as group:
        for question in job.questions:
            group.create_task(ask(question))
            await asyncio.sleep(job.interval)


def _tell(work: Work, put: int, delivered: int) -> None:
    print(json.dumps({"answered": len(work.answers), "put": put, "delivered": delivered}), flush=True)


def _recorded_queue(config: PrefactorCoreConfig, puts: list[Operation]) -> Queue[Any]:
    """Return the queue that the client would make, with a list of all that is put to it."""
    queue = create_queue(config.transport_url, config)
    if not isinstance(queue, DirectQueue):
        raise TypeError(f"{config.transport_url} makes no queue that takes operations at once")
    offer = queue.offer

    def offer_and_record(item: Any) -> None:
        offer(item)
        puts.append(item)

    queue.offer = offer_and_record  # type: ignore[method-assign] # whichever transport's queue it is
    return queue


def main() -> None:
    """Do the job in a file; the puts are written as `prefactor-emulator verify` reads them."""
    path = Path(sys.argv[1])
    config = PrefactorCoreConfig.from_env(env_file=None)
    config.schema_registry = schema_registry()
    puts: list[Operation] = []
    work = asyncio.run(work_on(Job.model_validate_json(path.read_bytes()), config, puts))
    lines = ({"instance_id": p.instance_id, "type": p.type.value, "key": p.idempotency_key} for p in puts)
    path.with_suffix(".puts").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    path.with_suffix(".work").write_text(work.model_dump_json())


if __name__ == "__main__":
    main()
