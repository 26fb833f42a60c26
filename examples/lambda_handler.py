"""A handler for AWS Lambda: what an invocation recorded is delivered before it returns.

Lambda freezes a process between two invocations, and ends it without notice. So nothing may be left for
later: ``flush`` waits until everything is delivered, for two seconds at most. What is late then goes on
with the next invocation, if there is one.

Deploy it with the handler ``lambda_handler.handler``, or run it beside an emulator::

    prefactor-emulator &
    cd examples
    python -c 'from lambda_handler import handler; print(handler({"text": "One. Two. Three."}, None))'
"""

import os
from typing import Any

from prefactor_core import HttpClientConfig, PrefactorCoreConfig, SchemaRegistry
from prefactor_core.sync import PrefactorCoreClient

FLUSH_SECONDS = 2.0
VERSION = {"name": "summaries", "external_identifier": "summaries-1.0"}

schemas = SchemaRegistry()
schemas.register("lambda:split", {"type": "object"})
schemas.register("lambda:llm", {"type": "object"})

# Made once, as the process starts, for all of its invocations.
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


def handler(event: dict[str, Any], _context: object) -> dict[str, str]:
    """Answer one invocation, whatever becomes of its telemetry."""
    try:
        return {"summary": summarise(event["text"])}
    finally:
        if not client.flush(timeout=FLUSH_SECONDS):
            print("telemetry is late:", client.stats())


def summarise(text: str) -> str:
    """Summarise a text by its first and last sentence. What is raised in here ends the instance as failed."""
    with client.create_agent_instance(agent_version=VERSION) as instance:
        instance.start()
        with instance.span("lambda:split", payload={"characters": len(text)}) as span:
            sentences = [sentence.strip() for sentence in text.split(".") if sentence.strip()]
            span.set_result({"sentences": len(sentences)})
            if not sentences:
                raise ValueError("there is no sentence in this text")
        with instance.span("lambda:llm", payload={"sentences": len(sentences)}) as span:
            summary = f"{sentences[0]} ... {sentences[-1]}."  # a model at work
            span.set_result({"summary": summary})
    return summary
