"""The rig of each test, and one of any server."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.transports.redis.rig import RedisRig


@pytest.fixture
def rig(redis_rig: RedisRig) -> RedisRig:
    """Brokers on the shared server."""
    return redis_rig


@pytest.fixture
async def rig_at(redis_prefix: str) -> AsyncIterator[Callable[[str], RedisRig]]:
    """Make brokers of a server that the test has started."""
    made: list[RedisRig] = []

    def make(url: str) -> RedisRig:
        made.append(RedisRig(url, redis_prefix))
        return made[-1]

    yield make
    for rig in made:
        await rig.disconnect()
