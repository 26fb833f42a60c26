"""Each way to misbehave does what it says, to whom it says, and nothing else."""

import time
from collections.abc import Iterator

import httpx
import pytest

from prefactor_emulator.faults.kinds import FAULT_KINDS, parse_fault
from tests.emulator.driver import (
    CREATE,
    Api,
    EmulatorProcess,
    Served,
    bulk_item,
    faults,
    new_key,
    span,
)


@pytest.fixture
def api(faulty: Served) -> Iterator[Api]:
    with faulty.api() as client:
        yield client


def spans_of(api: Api, instance_id: str) -> int:
    return len(api.look(f"instances/{instance_id}")["spans"])


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ("error", 500),
        ("error:status=503", 503),
        ("throttle:retry_after=7", 429),
        ("html-errors:status=404", 404),
        ("bad-token", 401),
        ("bad-token:status=403", 403),
        ("reject", 422),
        ("reject:status=400,type=agent_spans/create", 400),
    ],
)
def test_refusals_come_before_the_effect(api: Api, spec: str, status: int) -> None:
    instance_id, key = api.instance(), new_key()
    with faults(api, spec):
        response = api.create(instance_id, key)
        assert response.status_code == status
        if spec.startswith("html"):
            assert response.headers["content-type"] == "text/html"
        else:
            assert response.json()["status"] == "error"
        if status == 429:
            assert response.headers["retry-after"] == "7"
        assert api.get("ping").is_success is not spec.startswith("bad-token")
    assert spans_of(api, instance_id) == 0
    assert api.create(instance_id, key).is_success


def test_latency_is_everywhere_in_the_api_and_nowhere_else(api: Api) -> None:
    with faults(api, "latency:ms=120,jitter_ms=1"):
        began = time.monotonic()
        assert api.get("ping").is_success
        assert time.monotonic() - began >= 0.12
        for _ in range(3):
            assert api.look("faults")["hits"] == [1]


@pytest.mark.parametrize("part", ["0", "0.5"])
@pytest.mark.parametrize("bulk", [False, True])
def test_a_lost_reply_leaves_the_effect(api: Api, part: str, bulk: bool) -> None:
    instance_id, key = api.instance(), new_key()
    item = bulk_item(CREATE, None, span(instance_id), key)
    with faults(api, f"lost-reply:part={part}"):
        with pytest.raises(httpx.RemoteProtocolError if part != "0" else httpx.TransportError):
            _ = api.bulk(item) if bulk else api.create(instance_id, key)
        assert spans_of(api, instance_id) == 1
        assert api.get("ping").is_success
    assert api.create(instance_id, key).is_success, "its repeat is answered"
    assert spans_of(api, instance_id) == 1


def test_half_a_reply_is_half_a_reply(api: Api) -> None:
    instance_id = api.instance()
    body = {"idempotency_key": new_key(), **span(instance_id)}
    with faults(api, "lost-reply:part=0.5"), api.stream("POST", "agent_spans", json=body) as reply:
        assert reply.status_code == 200
        received = bytearray()
        with pytest.raises(httpx.RemoteProtocolError):
            for chunk in reply.iter_raw():
                received += chunk
        assert 0 < len(received) < int(reply.headers["content-length"])


def test_away_is_away_for_reads_too_and_nothing_happens(api: Api) -> None:
    instance_id = api.instance()
    with faults(api, "away"):
        with pytest.raises(httpx.TransportError):
            api.create(instance_id)
        with pytest.raises(httpx.TransportError):
            api.get("ping")
        assert spans_of(api, instance_id) == 0
    assert api.create(instance_id).is_success


@pytest.mark.parametrize("status", [404, 405, 501])
def test_no_bulk_leaves_single_requests(api: Api, status: int) -> None:
    instance_id = api.instance()
    with faults(api, f"no-bulk:status={status}"):
        assert api.post("bulk", json={"items": []}).status_code == status
        assert api.create(instance_id).is_success
    assert api.bulk() == {}


def test_a_slow_body_arrives_whole(api: Api) -> None:
    instance_id = api.instance()
    with faults(api, "slow-body:bytes=10,ms=5"):
        began = time.monotonic()
        response = api.create(instance_id)
        assert response.json()["details"]["agent_instance_id"] == instance_id
        assert time.monotonic() - began > len(response.content) / 10 * 0.005 * 0.9


@pytest.mark.parametrize("first", ["slow-body:ms=0", "lost-reply", "lost-reply:part=0.5"])
def test_a_reply_may_be_kept_back_that_a_later_fault_loses(api: Api, first: str) -> None:
    instance_id = api.instance()
    for second, effects in (("away", 0), ("lost-reply", 1), ("lost-reply:part=0.5", 1)):
        before = spans_of(api, instance_id)
        with faults(api, first, second):
            with pytest.raises(httpx.TransportError):
                api.create(instance_id)
            assert api.look("faults")["hits"] == [1, 1]
        assert spans_of(api, instance_id) - before == effects


def test_a_rejected_operation_is_rejected_for_good_and_alone(api: Api) -> None:
    instance_id = api.instance()
    keys = [new_key() for _ in range(60)]
    with faults(api, "reject:rate=0.3,type=agent_spans/create,schema=plain"):
        first = {key: api.create(instance_id, key).status_code for key in keys}
        again = {key: api.create(instance_id, key).status_code for key in keys}
        other = span(instance_id, schema_name="typed")
        assert all(api.write(CREATE, None, other, key + "-other").is_success for key in keys)
        assert first == again
        assert set(first.values()) == {200, 422}
        outputs = api.bulk(*(bulk_item(CREATE, None, span(instance_id), key) for key in keys))
        assert list(outputs) == keys[: len(outputs)]
        *done, rejected = outputs.items()
        assert all(first[key] == 200 for key, _ in done)
        assert first[rejected[0]] == 422
        assert rejected[1]["code"] == "rejected"


def test_chance_follows_the_seed_and_the_rate(api: Api) -> None:
    instance_id = api.instance()

    def run(seed: int, *more: str) -> list[int]:
        with faults(api, "error:rate=0.4", *more, seed=seed):
            return [api.create(instance_id).status_code for _ in range(80)]

    first = run(7)
    assert run(7) == first
    assert run(7, "latency:ms=0,jitter_ms=1") == first, "other faults do not shift it"
    assert run(8) != first
    assert 10 < first.count(500) < 60


def test_faults_of_the_command_line() -> None:
    arguments = ("--fault", "error:rate=1,status=502", "--fault", "latency:ms=1", "--seed", "3")
    with EmulatorProcess(*arguments) as process, process.api() as client:
        specs = [arguments[1], arguments[3]]
        assert client.look("faults") == {"faults": specs, "hits": [0, 0], "seed": 3}
        assert client.post("bulk", json={"items": []}).status_code == 502
        assert client.get("ping").is_success
        client.delete(f"{client.root}/emulator/faults")
        assert client.bulk() == {}


def test_a_wrong_change_changes_nothing(api: Api) -> None:
    address = f"{api.root}/emulator/faults"
    bodies: list[tuple[dict[str, object], str]] = [
        ({}, "faults"),
        ({"faults": "error"}, "faults"),
        ({"faults": [1]}, "faults.0"),
        ({"faults": ["fire"]}, "faults"),
        ({"faults": [], "seed": "x"}, "seed"),
        ({"faults": [], "seed": True}, "seed"),
    ]
    with faults(api, "latency:ms=0", seed=5):
        for body, field in bodies:
            response = api.post(address, json=body)
            assert (response.status_code, list(response.json()["errors"])) == (422, [field]), body
            assert api.get(address).json() == {"faults": ["latency:ms=0"], "hits": [0], "seed": 5}


def test_every_fault_works_without_options_and_is_described_by_an_example() -> None:
    for name, kind in FAULT_KINDS.items():
        example = (kind.__doc__ or "").split("`")[1]
        for spec in (name, f"{name}:", example):
            assert isinstance(parse_fault(spec), kind), spec
