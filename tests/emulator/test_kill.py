"""Kills, a full disk, a file that is shared: whatever was acknowledged is in the log, once and in order."""

import random
import resource
import signal
import threading
from functools import partial
from pathlib import Path

import httpx
import pytest

from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject
from prefactor_emulator.verify.compare import LoggedEffect, Put, compare
from prefactor_emulator.verify.files import read_effects
from tests.emulator.driver import CREATE, FINISH, Api, EmulatorProcess, bulk_item, eventually, new_key, span

_ROUNDS = 6
_LANES = 3


class Lane:
    """A client that bulk-writes to an instance of its own, and after a kill repeats what got no reply."""

    def __init__(self, api: Api) -> None:
        self.instance_id = api.instance()
        self.acknowledged: list[str] = []
        self.put: list[str] = []
        self.first = self._item()
        self.unanswered = [self.first]

    def write_until_it_dies(self, url: str, dice: random.Random) -> None:
        with Api(url, "token") as api:
            try:
                while True:
                    if not self.unanswered:
                        self.unanswered = [self._item() for _ in range(dice.randint(1, 60))]
                    self.acknowledged += api.bulk(*self.unanswered)
                    self.unanswered = []
            except httpx.TransportError:
                return

    def _item(self) -> JsonObject:
        span_id = new_id()
        self.put.append(f"{span_id}:create")
        return bulk_item(CREATE, None, span(self.instance_id, id=span_id), self.put[-1])


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_acknowledged_before_a_kill_is_in_the_log(tmp_path: Path, seed: int) -> None:
    db, dice = tmp_path / "runs.db", random.Random(seed)  # noqa: S311 - chance for tests
    lanes: list[Lane] = []
    for _ in range(_ROUNDS):
        with EmulatorProcess("--db", str(db)) as emulator:
            if not lanes:
                with emulator.api("token") as api:
                    lanes = [Lane(api) for _ in range(_LANES)]
            threads = [
                threading.Thread(target=lane.write_until_it_dies, args=[emulator.url, random.Random(seed)])  # noqa: S311
                for lane in lanes
            ]
            enough = acknowledged_by(lanes) + dice.randint(1, 1500)
            for thread in threads:
                thread.start()
            eventually(partial(have_acknowledged, lanes, enough))
            assert emulator.end(signal.SIGKILL)[0] == -signal.SIGKILL
            for thread in threads:
                thread.join(600)
                assert not thread.is_alive()
        stored = {effect.key for effect in effects_of_spans(db)}
        assert {key for lane in lanes for key in lane.acknowledged} <= stored
        for lane in lanes:
            done = [item["idempotency_key"] in stored for item in lane.unanswered]
            assert all(done) or not any(done), "requests are done wholly or not at all"
    with EmulatorProcess("--db", str(db)) as emulator, emulator.api("token") as api:
        for lane in lanes:
            if lane.unanswered:
                lane.acknowledged += api.bulk(*lane.unanswered)
            assert lane.acknowledged == lane.put
            assert api.bulk(lane.first)[lane.put[0]]["status"] == "success", "keys survive too"
            assert len(api.look(f"instances/{lane.instance_id}")["spans"]) == len(lane.put)
    puts = [Put(lane.instance_id, CREATE, key) for lane in lanes for key in lane.put]
    assert compare(puts, effects_of_spans(db)).clean, f"seed {seed}"


def acknowledged_by(lanes: list[Lane]) -> int:
    return sum(len(lane.acknowledged) for lane in lanes)


def have_acknowledged(lanes: list[Lane], enough: int) -> bool:
    return acknowledged_by(lanes) >= enough


def effects_of_spans(db: Path) -> list[LoggedEffect]:
    return [effect for effect in read_effects(str(db)) if effect.type is CREATE]


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    text = "x" * 10_000
    acknowledged: list[str] = []
    with EmulatorProcess("--db", str(db)) as emulator, emulator.api("token") as api:
        instance_id = api.instance()
        room = db.with_name("runs.db-wal").stat().st_size + 3_000_000
        resource.prlimit(emulator.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        while True:
            items = [creation(instance_id, payload={"text": text}) for _ in range(20)]
            response = api.post("bulk", json={"items": items})
            if not response.is_success:
                break
            acknowledged += response.json()["outputs"]
        assert (response.status_code, response.json()["code"]) == (500, "internal_error")
        assert acknowledged
        assert api.get("ping").is_success
        assert len(api.look(f"instances/{instance_id}")["spans"]) == len(acknowledged)
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(emulator.process.pid, resource.RLIMIT_FSIZE, unlimited)
        acknowledged += api.bulk(*items)
        code, errors = emulator.end()
    assert (code, "disk" in errors, text[:100] in errors) == (0, True, False)
    assert [effect.key for effect in effects_of_spans(db)] == acknowledged


def test_two_emulators_on_one_file_know_what_the_other_does_and_lose_nothing(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    acknowledged: dict[str, list[list[str]]] = {}

    def write(url: str, instance_id: str) -> None:
        done: list[str] = []
        acknowledged[instance_id].append(done)
        with Api(url, "token") as api:
            for _ in range(30):
                done += api.bulk(*(creation(instance_id) for _ in range(20)))

    arguments = ("--db", str(db))
    with EmulatorProcess(*arguments) as one, EmulatorProcess(*arguments) as two:
        with one.api("token") as api:
            ids = [api.instance() for _ in range(2)]
        acknowledged = {instance_id: [] for instance_id in ids}
        threads = [
            threading.Thread(target=write, args=[emulator.url, instance_id])
            for emulator in (one, two)
            for instance_id in ids
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with two.api("token") as api:
            page = api.get(f"{two.url}/")
            with one.api("token") as writing:
                writing.instance()
            known = {"If-None-Match": page.headers["etag"]}
            assert api.get(f"{two.url}/", headers=known).status_code == 200, "the other's changes show, too"
            assert [len(api.look(f"instances/{each}")["spans"]) for each in ids] == [1200, 1200]
            with one.api("token") as ending:
                ending.do(FINISH, ids[0], {})
            assert api.get(f"agent_instance/{ids[0]}").json()["details"]["status"] == "complete"
        assert one.end() == two.end() == (0, "")
    effects = effects_of_spans(db)
    for instance_id in ids:
        keys = [effect.key for effect in effects if effect.instance_id == instance_id]
        assert len(set(keys)) == len(keys) == 1200
        for done in acknowledged[instance_id]:
            assert [key for key in keys if key in set(done)] == done, "each writer's effects are in its order"


def creation(instance_id: str, **changes: object) -> JsonObject:
    return bulk_item(CREATE, None, span(instance_id, **changes), new_key())
