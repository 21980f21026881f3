"""The hot queue, the leases and the wake-ups in Redis.

link = connect(url, namespace)
queue = RedisHotQueue(link, expected_epoch=...)
leases = RedisLeases(link, expected_epoch=...)
"""

from __future__ import annotations

from gpuq.stores.redis.leases import RedisAgentKey, RedisLeases
from gpuq.stores.redis.link import RedisLink, connect
from gpuq.stores.redis.notify import LocalNotifier, RedisNotifier
from gpuq.stores.redis.private.server import PrivateRedis, private_url
from gpuq.stores.redis.queue import RedisHotQueue

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
]
