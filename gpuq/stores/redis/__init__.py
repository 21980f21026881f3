"""The hot queue, the leases and the wake-ups in Redis.

link = connect(url, namespace)
queue = RedisHotQueue(link, expected_epoch=...)
leases = RedisLeases(link, expected_epoch=...)

In and out: as `gpuq.ports.hot_queue` and `gpuq.ports.notify` say. Each step is one script, so it happened or it did
not; nothing stands here that SQL cannot give back. May import: `gpuq.ports`, `gpuq.errors`, redis-py.
"""

from __future__ import annotations

from gpuq.stores.redis.leases import RedisAgentKey, RedisLeases
from gpuq.stores.redis.link import RedisLink, connect
from gpuq.stores.redis.notify import LocalNotifier, RedisNotifier
from gpuq.stores.redis.private.server import PrivateRedis, private_url
from gpuq.stores.redis.queue import RedisHotQueue
from gpuq.stores.redis.scripts import read_scripts

__all__ = [
    "LocalNotifier",
    "PrivateRedis",
    "RedisAgentKey",
    "RedisHotQueue",
    "RedisLeases",
    "RedisLink",
    "RedisNotifier",
    "connect",
    "private_url",
    "read_scripts",
]
