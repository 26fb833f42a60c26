"""The options that every fault has: how often it hits, and whom it spares."""

from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from prefactor_emulator.faults.fault import OperationFault
from prefactor_emulator.faults.kinds import FAULT_KINDS, FaultSpecError, parse_fault
from prefactor_emulator.ids import new_id
from tests.emulator.driver import (
    CREATE,
    FINISH_SPAN,
    NOW,
    OVER,
    REGISTER,
    START,
    Api,
    Served,
    bulk_item,
    faults,
    new_key,
    registration,
    span,
)

SOMEBODY = new_id()
OF_REQUESTS = [name for name, kind in FAULT_KINDS.items() if not issubclass(kind, OperationFault)]


@pytest.fixture
def api(faulty: Served) -> Iterator[Api]:
    with faulty.api() as client:
        yield client


def hits(api: Api) -> list[int]:
    found: list[int] = api.look("faults")["hits"]
    return found


def create(api: Api, instance_id: str, **changes: object) -> int:
    return api.create(instance_id, **changes).status_code


def aim_of(spec: str) -> tuple[object, ...]:
    fault = parse_fault(spec)
    return fault.rate, fault.count, fault.type, fault.schema_name, fault.instance, fault.seed


def test_every_fault_takes_every_common_option_and_tells_a_wrong_one_by_name(
    subtests: pytest.Subtests,
) -> None:
    options = f"rate=0.25,count=3,type=agent_spans/create,schema=agent:llm,instance={SOMEBODY},seed=9"
    wrong = {
        "rate=1.1": "rate must be a number from 0 to 1, not '1.1'",
        "rate=nan": "rate must be a number from 0 to 1, not 'nan'",
        "rate": "'rate' is not of the form key=value",
        "rate=": "rate must be a number from 0 to 1, not ''",
        "=1": "'=1' is not of the form key=value",
        "rate=0,rate=1": "'rate' is given twice",
        "count=0": "count must be a whole number from 1 to 1000000000, not '0'",
        "count=1.5": "count must be a whole number",
        "count=many": "count must be a whole number",
        "type=span": "type must be one of agent_instances/register, agent_instances/start",
        "instance=me": "instance must be a PFID: 32 characters of lower-case base32, not 'me'",
        "seed=-1": "seed must be a whole number",
        "schema=": "schema must be the name of a schema, not ''",
        "colour=red": "has no option colour; it has rate, count, type, schema, instance, seed",
    }
    for name in FAULT_KINDS:
        with subtests.test(name):
            assert aim_of(f"{name}:{options}") == (0.25, 3, CREATE, "agent:llm", SOMEBODY, 9)
            assert aim_of(name) == (1, None, None, None, None, None)
        for option, words in wrong.items():
            with subtests.test(f"{name}:{option}"):
                with pytest.raises(FaultSpecError) as caught:
                    parse_fault(f"{name}:{option}")
                assert str(caught.value).startswith(f"'{name}:{option}': ")
                assert words in str(caught.value)
                assert "\n" not in str(caught.value)
    others = {
        "": "there is no fault",
        ":": "there is no fault",
        "reject:type=agent_spans/paint": "type must be one of",
        "latency:ms=-1": "ms must be",
        "error:status=200": "status must be a whole number from 400 to 599",
    }
    for spec, words in others.items():
        with subtests.test(spec), pytest.raises(FaultSpecError, match=words):
            parse_fault(spec)


@pytest.mark.parametrize("name", OF_REQUESTS)
def test_a_request_fault_stops_after_its_count(api: Api, name: str) -> None:
    with faults(api, f"{name}:count=2"):
        for _ in range(4):
            with suppress(httpx.TransportError):
                api.post("bulk", json={"items": []})
        assert hits(api) == [2]
        assert api.bulk() == {}, "it is over"


@pytest.mark.parametrize(
    "aim", ["instance={}", "schema=typed", "schema=typed,instance={}", "schema=typed,type=agent_spans/create"]
)
def test_a_request_fault_hits_only_requests_with_such_an_operation(api: Api, aim: str) -> None:
    instance_id, other_id = api.instance(), api.instance()
    aimed_at = bulk_item(CREATE, None, span(instance_id, schema_name="typed"), new_key())
    spared = [
        bulk_item(CREATE, None, span(other_id, schema_name="plain"), new_key()),
        bulk_item(START, api.instance("pending"), {"timestamp": NOW}, new_key()),
    ]
    with faults(api, "error:status=503," + aim.format(instance_id)):
        assert len(api.bulk(*spared)) == 2
        assert api.post("bulk", json={"items": [*spared, aimed_at]}).status_code == 503
        assert hits(api) == [1]
        assert create(api, other_id) == 200
        assert create(api, instance_id, schema_name="typed") == 503
        assert api.get("ping").is_success
        assert hits(api) == [2]


def test_the_finish_of_a_span_is_about_its_instance_and_schema(api: Api) -> None:
    instance_id = api.instance()
    stored, fresh, plain = new_id(), new_id(), new_id()
    assert create(api, instance_id, id=stored, schema_name="typed") == 200
    assert create(api, instance_id, id=plain) == 200
    with faults(api, "error:status=503,schema=typed,type=agent_spans/finish"):
        assert api.write(FINISH_SPAN, plain, OVER).status_code == 200
        assert api.write(FINISH_SPAN, stored, OVER).status_code == 503
        items = [
            bulk_item(CREATE, None, span(instance_id, id=fresh, schema_name="typed"), new_key()),
            bulk_item(FINISH_SPAN, fresh, OVER, new_key()),
        ]
        assert len(api.bulk(items[0])) == 1
        again = [dict(item, idempotency_key=new_key()) for item in items]
        assert api.post("bulk", json={"items": again}).status_code == 503
    fresh = new_id()
    items = [
        bulk_item(CREATE, None, span(instance_id, id=fresh, schema_name="typed"), new_key()),
        bulk_item(FINISH_SPAN, fresh, OVER, new_key()),
    ]
    with faults(api, f"error:status=503,schema=typed,instance={instance_id},type=agent_spans/finish"):
        assert api.post("bulk", json={"items": items}).status_code == 503
    with faults(api, "reject:schema=typed,type=agent_spans/finish"):
        first, second = api.bulk(*items).values()
        assert (first["status"], second["code"]) == ("success", "rejected")


def test_a_registration_is_aimed_at_by_the_id_that_it_chooses(api: Api) -> None:
    chosen = new_id()
    with faults(api, f"error:status=503,instance={chosen}", f"reject:status=400,instance={chosen}"):
        assert api.write(REGISTER, None, registration()).status_code == 200
        assert api.write(REGISTER, None, registration(id=chosen)).status_code == 503
    with faults(api, f"reject:status=400,instance={chosen}"):
        assert api.write(REGISTER, None, registration(id=chosen)).status_code == 400


def test_what_cannot_be_read_or_is_too_large_is_about_nothing(api: Api) -> None:
    with faults(api, "error:status=503,schema=typed"):
        for content in (b"", b"[1]", b"{", b'{"items": 7}', b'{"items": [7, {"a": 1}]}'):
            for path in ("bulk", "agent_spans"):
                assert api.post(path, content=content).status_code in {400, 422}, (path, content)
        assert api.post("bulk", content=b"x" * (6 << 20)).status_code == 413
    assert api.get("ping").is_success


@pytest.mark.parametrize(("name", "effects"), [("away", 0), ("lost-reply", 1), ("lost-reply:part=0.5", 1)])
def test_connections_break_only_for_what_is_aimed_at(api: Api, name: str, effects: int) -> None:
    instance_id, other_id, key = api.instance(), api.instance(), new_key()
    separator = "," if ":" in name else ":"
    with faults(api, f"{name}{separator}instance={instance_id},count=1"):
        assert create(api, other_id) == 200
        assert api.get("ping").is_success
        with pytest.raises(httpx.TransportError):
            api.create(instance_id, key)
        assert len(api.effects(instance_id)) == 2 + effects
        assert api.create(instance_id, key).is_success
    assert len(api.effects(instance_id)) == 3


def test_rejected_once_is_rejected_for_good_and_counted_once(api: Api) -> None:
    instance_id = api.instance()
    keys = [new_key() for _ in range(3)]
    with faults(api, f"reject:count=2,instance={instance_id}"):
        statuses = [api.create(instance_id, key).status_code for key in (*keys, *reversed(keys))]
        assert statuses == [422, 422, 200, 200, 422, 422]
        assert hits(api) == [2]


def test_as_many_instances_are_terminated_as_are_counted(api: Api) -> None:
    instances = [api.instance() for _ in range(4)]
    with faults(api, "terminate:count=2,type=agent_spans/create"):
        for instance_id in instances * 2:
            assert create(api, instance_id) == 200
        assert hits(api) == [2]
    states = [api.get(f"agent_instance/{each}").json()["details"]["status"] for each in instances]
    assert states == ["terminated", "terminated", "active", "active"]


def test_termination_is_aimed_at_one_instance_and_cancels_its_spans_in_flight(api: Api) -> None:
    instance_id, other_id = api.instance(), api.instance()
    span_id = api.span(instance_id)
    with faults(api, f"terminate:instance={instance_id},reason=enough"):
        assert "control" not in api.create(other_id).json()
        for _ in range(2):
            assert api.create(instance_id).json()["control"] == {"terminate": True, "reason": "enough"}
        assert api.refused(FINISH_SPAN, span_id, OVER).code == "invalid_action"
        assert hits(api) == [1]
    spans = {each["id"]: each["status"] for each in api.look(f"instances/{instance_id}")["spans"]}
    assert spans[span_id] == "cancelled"


def test_termination_counts_only_what_it_hits_and_leaves_other_accounts_and_repeats_alone(
    faulty: Served, api: Api
) -> None:
    instance_id, key = api.instance(), new_key()
    span_id = api.create(instance_id, key).json()["details"]["id"]
    with faulty.api() as stranger, faults(api, "terminate:count=1"):
        assert stranger.refused(CREATE, None, span(instance_id)).status == 404
        assert stranger.refused(FINISH_SPAN, span_id, OVER).status == 404
        assert api.refused(CREATE, None, span(new_id())).status == 404
        assert api.refused(CREATE, None, span(api.instance("complete"))).status == 409
        assert api.create(instance_id, key).is_success, "a repeat, which was answered before"
        assert hits(api) == [0]
        assert "control" in api.create(instance_id).json()
        assert hits(api) == [1]


@pytest.mark.parametrize(("words", "reason"), [("", "a fault asked for"), (":reason=", None)])
def test_termination_tells_a_reason_or_none(api: Api, words: str, reason: str | None) -> None:
    with faults(api, f"terminate{words}"):
        reply = api.create(api.instance()).json()
    assert reply["control"] == {"terminate": True, "reason": reason}


def test_keys_are_forgotten_only_before_what_is_aimed_at(api: Api) -> None:
    instance_id, span_id, key = api.instance(), new_id(), new_key()
    fields = span(instance_id, id=span_id)
    with faults(api, "forget-keys:schema=typed,count=1"):
        statuses = [api.write(CREATE, None, fields, key).status_code for _ in range(2)]
        create(api, instance_id, schema_name="typed")
        statuses.append(api.write(CREATE, None, fields, key).status_code)
    assert statuses == [200, 200, 409]


def test_a_seed_of_its_own_takes_the_place_of_the_common_one(api: Api) -> None:
    instance_id = api.instance()

    def run(spec: str, seed: int) -> list[int]:
        with faults(api, spec, seed=seed):
            return [create(api, instance_id) for _ in range(40)]

    first = run("error:rate=0.5,seed=4", 1)
    assert run("error:rate=0.5,seed=4", 2) == first
    assert run("error:rate=0.5,seed=5", 1) != first
