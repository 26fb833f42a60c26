"""What is wrong with a server: settings that can lose or hold up operations, and missing permissions."""

from dataclasses import dataclass
from typing import Final

from redis.exceptions import NoPermissionError

from prefactor_core.transport import BrokerError
from prefactor_redis.keys import Keys
from prefactor_redis.link import Link
from prefactor_redis.replies import integer, items, text
from prefactor_redis.scripts import LOOKING, Script
from prefactor_redis.servers import Links
from prefactor_redis.target import Target

_NEEDED_VERSION = (7, 0)  # the first that takes scripts with flags


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says about itself."""

    values: dict[str, str]
    """The lines of ``INFO``, which users may see who may not see ``CONFIG``; empty if this one may not."""

    @property
    def too_old(self) -> bool:
        """Whether it cannot run our scripts."""
        parts = self.values.get("redis_version", "").split(".")[:2]
        numbers = tuple(int(part) for part in parts if part.isdecimal())
        return bool(numbers) and numbers < _NEEDED_VERSION

    def losses(self) -> list[str]:
        """Say by which settings operations can be lost."""
        if not self.values:
            return ["its settings cannot be checked, because this user may not run INFO"]
        problems: list[str] = []
        policy = self.values.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            problems.append(
                f"maxmemory-policy is {policy}: when memory runs short, operations that nobody has "
                "handled are evicted without a word; set it to noeviction"
            )
        if self.values.get("aof_enabled") == "0":
            problems.append(
                "appendonly is no: when the server crashes, all operations since its last snapshot are lost, "
                "and all there are if it makes none; set it to yes"
            )
        return problems

    def others(self, replicas: int) -> list[str]:
        """Say what else is wrong, if so many replicas have to confirm what is published."""
        problems: list[str] = []
        if self.too_old:
            problems.append(f"it is version {self.values['redis_version']}, and needs to be 7.0 or newer")
        connected = self.values.get("connected_slaves")
        if connected is not None and int(connected) < replicas:
            problems.append(
                f"{connected} replicas are connected, and the option replicas={replicas} has publishing wait "
                "for more: nothing can be published"
            )
        if self.values.get("role", "master") != "master":
            problems.append("it is a replica, which takes no writes; name the master, or use sentinels")
        if self.values.get("loading", "0") == "1":
            problems.append("it is loading its data, and answers when it has")
        return problems


async def losses(links: Links) -> list[str]:
    """Say by which settings operations can be lost."""
    problems: list[str] = []
    for address in await links.servers.all():
        link = links.to(address)
        problems += [f"{link.name}: {problem}" for problem in (await _facts(link)).losses()]
    return problems


async def all_problems(links: Links, target: Target, keys: Keys) -> list[str]:
    """Say everything that is wrong."""
    problems: list[str] = []
    too_old = False
    for address in await links.servers.all():
        link = links.to(address)
        facts = await _facts(link)
        too_old |= facts.too_old
        found = facts.losses() + facts.others(target.options.replicas)
        if target.kind == "cluster":
            found += await _cluster_problems(link)
        elif facts.values.get("cluster_enabled") == "1":
            found.append("it is a node of a cluster; use redis+cluster://")
        problems += [f"{link.name}: {problem}" for problem in found]
    if too_old:
        return problems  # it could not even be asked for the rest
    return problems + await _all_denied(links, keys)


async def _facts(link: Link) -> Facts:
    try:
        lines = text(await link.call("INFO")).splitlines()
    except BrokerError as error:
        if isinstance(error.__cause__, NoPermissionError):
            return Facts({})
        raise
    return Facts(dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#")))


async def _cluster_problems(link: Link) -> list[str]:
    try:
        said = text(await link.call("CLUSTER", "INFO"))
    except BrokerError as error:
        return [str(error)]
    return [] if "cluster_state:ok" in said else ["its cluster is not whole: not all slots are served"]


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


async def _all_denied(links: Links, keys: Keys) -> list[str]:
    """Say what the user may not do; changes nothing."""
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
