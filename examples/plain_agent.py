"""A plain asyncio agent: tools side by side, spans that nest, a failure it survives and one it does not.

The agent answers questions about the weather. Its "model" is a few lines of Python, so that the example runs
anywhere; what it records is what a real agent would.

Run it beside an emulator::

    prefactor-emulator &
    python examples/plain_agent.py
"""

import asyncio
import os

from prefactor_core import (
    AgentInstanceHandle,
    HttpClientConfig,
    PrefactorCoreClient,
    PrefactorCoreConfig,
    SchemaRegistry,
)

WEATHER = {"Oslo": "snow", "Lisbon": "sun"}


class NoSuchCityError(Exception):
    """Nobody knows this city."""


def configuration() -> PrefactorCoreConfig:
    """Say how to reach the API, and what the spans look like."""
    schemas = SchemaRegistry()
    # The first schema is of what a span is given, the second of what it results in.
    schemas.register("agent:answer", {"type": "object", "properties": {"question": {"type": "string"}}})
    schemas.register("agent:llm", {"type": "object", "properties": {"prompt": {"type": "string"}}})
    schemas.register("tool:weather", {"type": "object", "properties": {"city": {"type": "string"}}})
    schemas.register_result("tool:weather", {"type": "object"})
    return PrefactorCoreConfig(
        http_config=HttpClientConfig(
            api_url=os.environ.get("PREFACTOR_API_URL", "http://127.0.0.1:8700"),
            api_token=os.environ.get("PREFACTOR_API_TOKEN", "dev"),
        ),
        schema_registry=schemas,
    )


async def weather(instance: AgentInstanceHandle, city: str) -> str:
    """Look the weather up: a tool."""
    async with instance.span("tool:weather", payload={"city": city}) as span:
        await asyncio.sleep(0.01)  # the weather service at work
        if city not in WEATHER:
            # The span fails by itself, with the exception's type and message in its result.
            raise NoSuchCityError(city)
        span.set_result({"weather": WEATHER[city]})
        return WEATHER[city]


async def answer(instance: AgentInstanceHandle, question: str, cities: list[str]) -> str:
    """Answer one question: ask all tools at once, then let the model put the findings into words."""
    async with instance.span("agent:answer", payload={"question": question}) as span:
        await span.start()  # now, rather than with the first tool
        # Spans that are opened in here, in tasks too, get this span as their parent.
        found = await asyncio.gather(*(weather(instance, city) for city in cities), return_exceptions=True)
        known = [f"{city}: {sky}" for city, sky in zip(cities, found, strict=True) if isinstance(sky, str)]
        if not known:
            raise NoSuchCityError(", ".join(cities))
        async with instance.span("agent:llm", payload={"prompt": question}) as llm:
            text = "; ".join(known)
            llm.set_result({"response": text})
        span.set_result({"answer": text, "unknown": len(cities) - len(known)})
        return text


async def main() -> None:
    """Run the agent twice: once with luck, once without."""
    version = {"name": "weather-agent", "external_identifier": "weather-agent-1.0"}
    client = PrefactorCoreClient(configuration())
    await client.initialize()
    questions = {"Where to, Oslo, Lisbon or Atlantis?": ["Oslo", "Lisbon", "Atlantis"], "And Ys?": ["Ys"]}
    for question, cities in questions.items():
        try:
            # A run is an instance. Leaving the block finishes it: as failed, if an exception comes by.
            async with client.create_agent_instance(agent_version=version) as instance:
                await instance.start()
                print(question, "->", await answer(instance, question, cities))
        except NoSuchCityError as error:
            print(question, "-> no answer:", error)
    summary = await client.close()  # delivers what is still queued
    print(f"{summary.delivered} of {summary.put} operations delivered")


if __name__ == "__main__":
    asyncio.run(main())
