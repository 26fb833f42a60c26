"""A FastAPI service in which every request is an agent instance.

One client serves all requests: it opens with the application and, when the application ends, delivers what is
still queued. No request waits for the API.

Run it beside an emulator::

    pip install prefactor-core fastapi uvicorn
    prefactor-emulator &
    python examples/fastapi_service.py
    curl localhost:8000/summaries -H 'content-type: application/json' -d '{"text": "One. Two. Three."}'
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from prefactor_core import (
    AgentInstanceHandle,
    HttpClientConfig,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    SchemaRegistry,
)


class State(TypedDict):
    """What requests get from the application."""

    telemetry: PrefactorCoreClient


class Text(BaseModel):
    """A text to be summarised."""

    text: str


class Summary(BaseModel):
    """What became of it."""

    summary: str
    instance_id: str


def configuration() -> PrefactorCoreConfig:
    """Say how to reach the API, and what the spans look like."""
    schemas = SchemaRegistry()
    schemas.register("service:split", {"type": "object"})
    schemas.register("service:llm", {"type": "object"})
    return PrefactorCoreConfig(
        http_config=HttpClientConfig(
            api_url=os.environ.get("PREFACTOR_API_URL", "http://127.0.0.1:8700"),
            api_token=os.environ.get("PREFACTOR_API_TOKEN", "dev"),
        ),
        schema_registry=schemas,
    )


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """Keep one client for as long as the application runs."""
    async with PrefactorCoreClient(configuration()) as client:
        yield {"telemetry": client}


app = FastAPI(title="Summaries", lifespan=lifespan)


async def instance_of(request: Request) -> AsyncIterator[AgentInstanceHandle]:
    """Make the request an instance: finished when it is answered, as failed if it raises."""
    client: PrefactorCoreClient = request.state.telemetry
    version = {"name": "summaries", "external_identifier": "summaries-1.0"}
    async with client.create_agent_instance(agent_version=version) as instance:
        await instance.start()
        yield instance


@app.post("/summaries")
async def summarise(body: Text, instance: Annotated[AgentInstanceHandle, Depends(instance_of)]) -> Summary:
    """Summarise a text by its first and last sentence."""
    async with instance.span("service:split", payload={"characters": len(body.text)}) as span:
        sentences = [sentence.strip() for sentence in body.text.split(".") if sentence.strip()]
        span.set_result({"sentences": len(sentences)})
        if not sentences:
            raise HTTPException(422, "there is no sentence in this text")
    async with instance.span("service:llm", payload={"sentences": len(sentences)}) as span:
        await asyncio.sleep(0.01)  # a model at work
        summary = f"{sentences[0]} ... {sentences[-1]}."
        span.set_result({"summary": summary})
    return Summary(summary=summary, instance_id=instance.id)


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
