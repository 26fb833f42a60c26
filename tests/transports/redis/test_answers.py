"""What became of replayed operations goes back to whoever replayed them, and to nobody else."""

import asyncio
from collections.abc import Callable

import pytest
import redis

from prefactor_redis import answers
from tests.support.brokers.redis_cluster import RedisCluster
from tests.support.brokers.redis_server import RedisServer
from tests.transports.redis.conftest import Ends

MakeEnds = Callable[[str], Ends]


async def test_answers_arrive_once_and_in_order(ends: Ends, raw: redis.Redis) -> None:
    dead, worker = ends.dead_letters(), ends.consuming()
    assert await dead.answers() == []
    address = await dead.open_answers()
    assert address is not None
    assert await dead.open_answers() == address
    await worker.answer(address, [b'{"n": 1}', b'{"n": 2}'])
    await worker.answer(address, [])
    assert await dead.answers() == [b'{"n": 1}', b'{"n": 2}']
    waiting = asyncio.create_task(dead.answers())
    await worker.answer(address, [b'{"n": 3}'])
    assert await waiting == [b'{"n": 3}']
    many = [b"%d" % number for number in range(1_200)]
    await worker.answer(address, many)
    found: list[bytes] = []
    while len(found) < len(many):
        found += await dead.answers()
    assert found == many
    started = asyncio.get_running_loop().time()
    assert await dead.answers() == []
    assert 0.5 < asyncio.get_running_loop().time() - started < 5
    await dead.disconnect()
    assert not list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))
    await worker.answer(address, [b"too late"])
    assert not list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))
    assert await dead.answers() == []
    assert await dead.open_answers() not in {None, address}


@pytest.mark.parametrize(
    "address", ["", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n", "../" + "0" * 29, "}:0:lease", "é" * 32]
)
async def test_what_is_no_address_of_ours_gets_nothing(ends: Ends, raw: redis.Redis, address: str) -> None:
    raw.set(f"{{{ends.prefix}:answers:{address}}}:taken", 0)
    await ends.consuming().answer(address, [b"1"])
    assert len(list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))) == 1


async def test_an_address_that_nobody_opened(ends: Ends, raw: redis.Redis) -> None:
    await ends.consuming().answer("0" * 32, [b"1"])
    assert not list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))


async def test_answers_that_nobody_takes_are_bounded_and_expire(
    ends: Ends, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_AT_ONCE", 5_000)
    dead, worker = ends.dead_letters(), ends.consuming()
    address = await dead.open_answers()
    assert address is not None
    for _ in range(4):
        await worker.answer(address, [b"1"] * 3_000)
    keys = list(raw.scan_iter(match=f"*{ends.prefix}*", count=10_000))
    assert {raw.type(key): 0 < raw.ttl(key) <= 3_600 for key in keys} == {b"string": True, b"list": True}
    (length,) = (raw.llen(key) for key in keys if raw.type(key) == b"list")
    assert length == 9_000


async def test_an_answer_whose_reply_was_lost_comes_again(
    redis_server: RedisServer, ends_at: MakeEnds
) -> None:
    ends = ends_at(redis_server.url)
    dead, worker = ends.dead_letters(), ends.consuming()
    address = await dead.open_answers()
    assert address is not None
    await worker.answer(address, [b"1"])
    taken, listed = (f"{{{ends.prefix}:answers:{address}}}:{name}" for name in ("taken", "answers"))
    for _ in range(2):  # what the reader asked, as far as the server can know
        words = (answers.TAKE.text, "2", taken, listed, "0")
        assert await asyncio.to_thread(redis_server.command, "EVAL", *words) == ["1"]
    assert await dead.answers() == [b"1"]


async def test_answers_in_a_cluster(redis_cluster: RedisCluster, ends_at: MakeEnds) -> None:
    ends = ends_at(redis_cluster.url)
    worker = ends.consuming()
    for number in range(5):  # in slots all over it
        dead = ends.dead_letters()
        address = await dead.open_answers()
        assert address is not None
        await worker.answer(address, [b"%d" % number])
        assert await dead.answers() == [b"%d" % number]
