"""Celery tasks that record what they do, each run of a task as an agent instance.

One client, made with the application. The worker forks its children after that, and each child goes on with
the client by itself. Celery ends them without the interpreter's exit, so each has to close its client: at a
warm shutdown, and when it is replaced (``--max-tasks-per-child``). A child that is killed loses what it has
not delivered: by a hard time limit, a cold shutdown, or for want of memory.

Run it beside an emulator and a Redis::

    pip install prefactor-core 'celery[redis]'
    prefactor-emulator &
    cd examples
    celery --app celery_tasks worker --concurrency 2 &
    python -c 'from celery_tasks import summarise; print(summarise.delay("One. Two. Three.").id)'
    kill -TERM %2  # a warm shutdown
"""

import os
from typing import Any

from celery import Celery, signals

from prefactor_core import HttpClientConfig, PrefactorCoreConfig, SchemaRegistry
from prefactor_core.sync import PrefactorCoreClient

VERSION = {"name": "summaries", "external_identifier": "summaries-1.0"}

schemas = SchemaRegistry()
schemas.register("task:split", {"type": "object"})
schemas.register("task:llm", {"type": "object"})

client = PrefactorCoreClient(
    PrefactorCoreConfig(
        http_config=HttpClientConfig(
            api_url=os.environ.get("PREFACTOR_API_URL", "http://127.0.0.1:8700"),
            api_token=os.environ.get("PREFACTOR_API_TOKEN", "dev"),
        ),
        schema_registry=schemas,
    )
)
client.initialize()

app = Celery("celery_tasks", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost/0"))


@signals.worker_process_shutdown.connect
def deliver(**_: Any) -> None:
    """Deliver what this child of the worker has, before it ends."""
    client.close(timeout=10)


@app.task
def summarise(text: str) -> str:
    """Summarise a text by its first and last sentence. What is raised in here ends the instance as failed."""
    with client.create_agent_instance(agent_version=VERSION) as instance:
        instance.start()
        with instance.span("task:split", payload={"characters": len(text)}) as span:
            sentences = [sentence.strip() for sentence in text.split(".") if sentence.strip()]
            span.set_result({"sentences": len(sentences)})
            if not sentences:
                raise ValueError("there is no sentence in this text")
        with instance.span("task:llm", payload={"sentences": len(sentences)}) as span:
            summary = f"{sentences[0]} ... {sentences[-1]}."  # a model at work
            span.set_result({"summary": summary})
    return summary
