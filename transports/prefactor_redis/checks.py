"""What is wrong with a server: settings that can lose or hold up operations, and missing permissions."""

from typing import Final, TypeAlias

from redis.exceptions import NoPermissionError

from prefactor_core.transport import BrokerError
from prefactor_redis.keys import Keys
from prefactor_redis.link import Link, integer, items, text
from prefactor_redis.scripts import looking
from prefactor_redis.servers import Links
from prefactor_redis.target import Target

Info: TypeAlias = dict[str, str]
"""The lines of ``INFO``, which users may see who may not see ``CONFIG``; empty if this one may not."""

_NEEDED_VERSION: Final = (7, 0)  # the first that takes scripts with flags


def settings_that_lose(info: Info) -> list[str]:
    """Say by which settings operations can be lost."""
    if not info:
        return ["its settings cannot be checked, because this user may not run INFO"]
    problems: list[str] = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(
            f"maxmemory-policy is {policy}: when memory runs short, operations that nobody has handled are "
            "evicted without a word; set it to noeviction"
        )
    if info.get("aof_enabled") == "0":
        problems.append(
            "appendonly is no: when the server crashes, all operations since its last snapshot are lost, and "
            "all there are if it makes none; set it to yes"
        )
    return problems


def other_problems(info: Info, replicas: int) -> list[str]:
    """Say what else is wrong, if so many replicas have to confirm what is published."""
    problems: list[str] = []
    if _is_too_old(info):
        problems.append(f"it is version {info['redis_version']}, and needs to be 7.0 or newer")
    connected = info.get("connected_slaves")
    if connected is not None and int(connected) < replicas:
        problems.append(
            f"{connected} replicas are connected, and the option replicas={replicas} has publishing wait for "
            "more: nothing can be published"
        )
    if info.get("role", "master") != "master":
        problems.append("it is a replica, which takes no writes; name the master, or use sentinels")
    if info.get("loading", "0") == "1":
        problems.append("it is loading its data, and answers when it has")
    return problems


def _is_too_old(info: Info) -> bool:
    parts = info.get("redis_version", "").split(".")[:2]
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    return bool(numbers) and numbers < _NEEDED_VERSION


async def losses(links: Links) -> list[str]:
    """Say by which settings operations can be lost."""
    problems: list[str] = []
    for address in await links.servers.all():
        link = links.to(address)
        problems += [f"{link.name}: {problem}" for problem in settings_that_lose(await _info(link))]
    return problems


async def all_problems(links: Links, target: Target, keys: Keys) -> list[str]:
    """Say everything that is wrong."""
    problems: list[str] = []
    too_old = False
    for address in await links.servers.all():
        link = links.to(address)
        info = await _info(link)
        too_old |= _is_too_old(info)
        found = settings_that_lose(info) + other_problems(info, target.options.replicas)
        if target.kind == "cluster":
            found += await _cluster_problems(link)
        elif info.get("cluster_enabled") == "1":
            found.append("it is a node of a cluster; use redis+cluster://")
        problems += [f"{link.name}: {problem}" for problem in found]
    if too_old:
        return problems  # it could not even be asked for the rest
    return problems + await _all_denied(links, keys)


async def _info(link: Link) -> Info:
    try:
        lines = text(await link.call("INFO")).splitlines()
    except BrokerError as error:
        if isinstance(error.__cause__, NoPermissionError):
            return {}
        raise
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


async def _cluster_problems(link: Link) -> list[str]:
    try:
        said = text(await link.call("CLUSTER", "INFO"))
    except BrokerError as error:
        return [str(error)]
    return [] if "cluster_state:ok" in said else ["its cluster is not whole: not all slots are served"]


DENIED: Final = looking("""
local key, channel, denied = KEYS[1], ARGV[1], {}
local needed = {
  'get KEY', 'set KEY 1', 'del KEY', 'exists KEY', 'expire KEY 1', 'pexpire KEY 1',
  'hget KEY f', 'hset KEY f 1', 'hdel KEY f', 'hexists KEY f', 'hincrby KEY f 1', 'hlen KEY',
  'llen KEY', 'lrange KEY 0 -1', 'ltrim KEY 0 -1', 'rpush KEY 1',
  'xadd KEY * f 1', 'xdel KEY 1-1', 'xlen KEY', 'xrange KEY - +', 'xinfo stream KEY', 'xread streams KEY 0',
  'zadd KEY 1 m', 'zcount KEY 0 1', 'zrem KEY m', 'zrange KEY 0 -1', 'zremrangebyscore KEY 0 1',
  'eval script 1 KEY', 'evalsha sha 1 KEY', 'pubsub numsub CHANNEL', 'ping', 'time', 'wait 0 0',
}
for _, command in ipairs(needed) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word == 'KEY' and key or word == 'CHANNEL' and channel or word
  end
  if not redis.acl_check_cmd(unpack(words)) then denied[#denied + 1] = string.upper(words[1]) end
end
return {denied, redis.acl_check_cmd('subscribe', channel) and 1 or 0}
""")
"""Returns the commands of ours that the user may not use on a key, and whether it may subscribe to a channel.

Runs none of them. ``KEYS``: any. ``ARGV``: channel."""


async def _all_denied(links: Links, keys: Keys) -> list[str]:
    """Say what the user may not do; changes nothing."""
    problems: list[str] = []
    channels = keys.alive("*")
    for key in (keys.of(0).operations, keys.partitions):
        try:
            commands, may_subscribe = items(await links.run(DENIED, [key], [channels]))
        except BrokerError as error:
            if not isinstance(error.__cause__, NoPermissionError):
                raise
            problems.append(str(error))
            continue
        if names := [text(command) for command in items(commands)]:
            problems.append(
                f"this user may not run {', '.join(names)} on keys like {key.decode()}; permit it (ACL "
                "SETUSER)"
            )
        if not integer(may_subscribe):
            problems.append(
                f"this user may not SUBSCRIBE to channels like {channels}: workers that were only cut off "
                f"count as crashed; permit it (ACL SETUSER, &{channels})"
            )
    return list(dict.fromkeys(problems))
