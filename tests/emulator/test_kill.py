"""A kill in the middle: whatever was acknowledged is in the log, once and in order."""

import random
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
from tests.emulator.driver import CREATE, Api, EmulatorProcess, bulk_item, eventually, span

_ROUNDS = 4
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
                thread.join(20)
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
