"""What the ACL user of a URL may not do, and has to."""

from typing import Final

from redis.exceptions import NoPermissionError

from prefactor_core.exceptions import BrokerError
from prefactor_redis.keys import Keys
from prefactor_redis.link import Link
from prefactor_redis.links import Links
from prefactor_redis.replies import integer, items, text
from prefactor_redis.script import LOOKING, Script

DENIED: Final = Script(
    LOOKING
    + """
local key, channel, denied = KEYS[1], ARGV[1], {}
local function try(...)
  if not redis.acl_check_cmd(...) then denied[#denied + 1] = string.upper((...)) end
end
try('get', key)
try('set', key, '1')
try('del', key)
try('exists', key)
try('expire', key, '1')
try('pexpire', key, '1')
try('hget', key, 'f')
try('hset', key, 'f', '1')
try('hdel', key, 'f')
try('hexists', key, 'f')
try('hincrby', key, 'f', '1')
try('hlen', key)
try('llen', key)
try('lrange', key, '0', '-1')
try('ltrim', key, '0', '-1')
try('rpush', key, '1')
try('xadd', key, '*', 'f', '1')
try('xdel', key, '1-1')
try('xlen', key)
try('xrange', key, '-', '+')
try('xinfo', 'stream', key)
try('xread', 'streams', key, '0')
try('zadd', key, '1', 'm')
try('zcount', key, '0', '1')
try('zrem', key, 'm')
try('zrange', key, '0', '-1')
try('zremrangebyscore', key, '0', '1')
try('eval', 'return 1', '1', key)
try('evalsha', '', '1', key)
try('pubsub', 'numsub', channel)
try('ping')
try('time')
try('wait', '0', '0')
return {denied, redis.acl_check_cmd('subscribe', channel) and 1 or 0}
"""
)
"""Returns the commands of ours that the user may not use on a key, and whether it may subscribe to a channel.

Runs none of them. ``KEYS``: any. ``ARGV``: channel."""


async def denied(links: Links, keys: Keys) -> list[str]:
    """Say what the user may not do; changes nothing.

    Raises:
        BrokerError: A server is unavailable.
    """
    problems: list[str] = []
    for key in (keys.of(0).operations, keys.partitions):
        found = await _denied(await links.of(key), key, keys.alive("*"))
        problems += [one for one in found if one not in problems]
    return problems


async def _denied(link: Link, key: bytes, channels: str) -> list[str]:
    try:
        commands, may_subscribe = items(await link.run(DENIED, [key], [channels]))
    except BrokerError as error:
        if isinstance(error.__cause__, NoPermissionError):
            return [str(error)]
        raise
    problems: list[str] = []
    if names := [text(command) for command in items(commands)]:
        problems.append(
            f"this user may not run {', '.join(names)} on keys like {key.decode()}; permit it (ACL SETUSER)"
        )
    if not integer(may_subscribe):
        problems.append(
            f"this user may not SUBSCRIBE to channels like {channels}: workers that were only cut off count "
            f"as crashed; permit it (ACL SETUSER, &{channels})"
        )
    return problems
