"""What an emulator holds of a run: its spans as a tree, and whether its effects came in a possible order."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from prefactor_emulator.verify.compare import PUT_TYPES, Put, compare
from prefactor_emulator.verify.files import read_effects
from tests.support.emulator import Emulator
from tests.support.recording import RecordingQueue

REGISTER, START, FINISH = (f"agent_instances/{what}" for what in ("register", "start", "finish"))
CREATE_SPAN, FINISH_SPAN = "agent_spans/create", "agent_spans/finish"


def check_complete(emulator: Emulator, queue: RecordingQueue) -> None:
    """Hold an emulator's log of effects against what was put, as `prefactor-emulator verify` does."""
    expected = [
        Put(operation.instance_id or "", PUT_TYPES[operation.type.value], operation.idempotency_key or "")
        for operation in queue.puts
    ]
    outcome = compare(expected, read_effects(str(emulator.database)))
    assert outcome.clean, outcome.findings
    assert outcome.puts == outcome.effects == len(queue.puts)
    assert queue.dead_lettered == 0


async def the_instance(emulator: Emulator) -> dict[str, Any]:
    """Return the one instance that the emulator has."""
    (instance_id,) = {effect["instance_id"] for effect in await emulator.effects()}
    return await emulator.instance(instance_id)


async def finished_instance(emulator: Emulator, queue: RecordingQueue) -> dict[str, Any]:
    """Return the one instance, whose every operation took effect once and in order."""
    check_complete(emulator, queue)
    instance = await the_instance(emulator)
    check_order(await emulator.effects(), instance)
    return instance


def outline(spans: list[dict[str, Any]], parent: str | None = None, depth: int = 0) -> list[str]:
    """Return the spans as lines `schema status`, indented below their parents, siblings by name."""
    lines = []
    below = [span for span in spans if span["parent_span_id"] == parent]
    for span in sorted(below, key=lambda span: (span["schema_name"], span["status"])):
        lines.append(f"{'  ' * depth}{span['schema_name']} {span['status']}")
        lines += outline(spans, span["id"], depth + 1)
    return lines


def check_order(effects: list[dict[str, Any]], instance: Mapping[str, Any]) -> None:
    """Check that everything of a finished instance took effect once, in an order that its agent can mean.

    Register and start come first, the finish of the instance last; a span is created before it is finished,
    and both between the create and the finish of its parent.
    """
    own = [effect for effect in effects if effect["instance_id"] == instance["id"]]
    spans = instance["spans"]
    assert [effect["type"] for effect in own[:2]] == [REGISTER, START]
    assert own[-1]["type"] == FINISH
    place = {(effect["type"], effect["span_id"]): number for number, effect in enumerate(own)}
    assert len(place) == len(own), "a deed was done twice"
    assert Counter(effect["type"] for effect in own) == Counter(
        {REGISTER: 1, START: 1, FINISH: 1, CREATE_SPAN: len(spans), FINISH_SPAN: len(spans)}
    )
    for span in spans:
        created, finished = place[CREATE_SPAN, span["id"]], place[FINISH_SPAN, span["id"]]
        assert created < finished
        if span["parent_span_id"] is not None:
            assert place[CREATE_SPAN, span["parent_span_id"]] < created
            assert finished < place[FINISH_SPAN, span["parent_span_id"]]
