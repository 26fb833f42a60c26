"""A plain script: no event loop, tools in threads, and no ``close()``.

What is not delivered yet as the script ends, well or by an exception, is delivered as the interpreter
exits.

Run it beside an emulator::

    prefactor-emulator &
    python examples/script.py
"""

import os
from concurrent.futures import ThreadPoolExecutor

from prefactor_core import HttpClientConfig, PrefactorCoreConfig, SchemaRegistry
from prefactor_core.sync import PrefactorCoreClient

PRICES = {"tea": 3.5, "cake": 4.25}

schemas = SchemaRegistry()
schemas.register("script:order", {"type": "object", "properties": {"articles": {"type": "array"}}})
schemas.register("script:price", {"type": "object", "properties": {"article": {"type": "string"}}})
schemas.register("script:llm", {"type": "object"})

# One client for the process. It delivers in a thread of its own, and no call waits for the API.
client = PrefactorCoreClient(
    PrefactorCoreConfig(
        http_config=HttpClientConfig(
            api_url=os.environ.get("PREFACTOR_API_URL", "http://127.0.0.1:8700"),
            api_token=os.environ.get("PREFACTOR_API_TOKEN", "dev"),
        ),
        schema_registry=schemas,
        close_timeout=10.0,  # seconds for which the exit waits at most
    )
)
client.initialize()

version = {"name": "script", "external_identifier": "script-1.0"}
with client.create_agent_instance(agent_version=version) as instance:
    instance.start()
    with instance.span("script:order", payload={"articles": list(PRICES)}) as order:

        def price_of(article: str) -> float:
            """Look a price up: a tool, in a thread of a pool."""
            # Spans nest by themselves within a thread; in another one, the parent is named.
            with instance.span("script:price", parent_span_id=order.id, payload={"article": article}) as span:
                span.set_result({"price": PRICES[article]})
                return PRICES[article]

        with ThreadPoolExecutor() as pool:
            total = sum(pool.map(price_of, PRICES))
        with instance.span("script:llm", payload={"total": total}) as llm:
            text = f"Tea and cake are {total} together."
            llm.set_result({"response": text})
        order.set_result({"total": total})
print(text)
