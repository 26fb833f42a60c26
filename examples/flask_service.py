"""A Flask service in which every request is an agent instance.

One client, made with the application, serves all requests in all threads. Under gunicorn each worker has
its own: it imports the application itself or, with ``--preload``, goes on with the client of the process
that it was forked from, which begins anew there. No request waits for the API.

Nothing has to be closed: as a worker exits, it delivers what it has, for ``close_timeout`` seconds at most.
That must be less than gunicorn's ``--graceful-timeout`` (30 s), after which workers are killed.

Run it beside an emulator::

    pip install prefactor-core flask gunicorn
    prefactor-emulator &
    gunicorn --chdir examples --workers 2 --threads 4 flask_service:app  # with --preload or without
    curl localhost:8000/summaries -H 'content-type: application/json' -d '{"text": "One. Two. Three."}'
"""

import os

from flask import Flask, abort, request

from prefactor_core import HttpClientConfig, PrefactorCoreConfig, SchemaRegistry
from prefactor_core.sync import PrefactorCoreClient

VERSION = {"name": "summaries", "external_identifier": "summaries-1.0"}

schemas = SchemaRegistry()
schemas.register("service:split", {"type": "object"})
schemas.register("service:llm", {"type": "object"})

client = PrefactorCoreClient(
    PrefactorCoreConfig(
        http_config=HttpClientConfig(
            api_url=os.environ.get("PREFACTOR_API_URL", "http://127.0.0.1:8700"),
            api_token=os.environ.get("PREFACTOR_API_TOKEN", "dev"),
        ),
        schema_registry=schemas,
        close_timeout=10.0,
    )
)
client.initialize()

app = Flask(__name__)


@app.post("/summaries")
def summarise() -> dict[str, str]:
    """Summarise a text by its first and last sentence. What is raised in here ends the instance as failed."""
    text = request.get_json()["text"]
    with client.create_agent_instance(agent_version=VERSION) as instance:
        instance.start()
        with instance.span("service:split", payload={"characters": len(text)}) as span:
            sentences = [sentence.strip() for sentence in text.split(".") if sentence.strip()]
            span.set_result({"sentences": len(sentences)})
            if not sentences:
                abort(422, "there is no sentence in this text")
        with instance.span("service:llm", payload={"sentences": len(sentences)}) as span:
            summary = f"{sentences[0]} ... {sentences[-1]}."  # a model at work
            span.set_result({"summary": summary})
    return {"summary": summary, "instance_id": instance.id}
