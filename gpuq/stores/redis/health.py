"""Is this Redis fit for us? Warnings for a person; gpuq works with any of them, but less well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from gpuq.stores.redis.link import RedisLink
from gpuq.stores.redis.private.redis_binary import MIN_MAJOR

NEARLY_FULL = 0.9


def check(link: RedisLink) -> list[str]:
    """Sentences about a Redis that somebody else configured; empty when all is well.

    Raises HotStoreUnavailable when it cannot be reached.
    """
    info = _permitted(link, lambda client: client.info())
    if info is None:
        return [f"Redis at {link.where} forbids INFO, so neither its version nor its settings were checked"]
    return [*_version(info), *_memory(info), *_role(info), *_persistence(link, info)]


def _permitted(link: RedisLink, ask: Callable[[redis.Redis], Any]) -> dict[str, Any] | None:
    """None when the server refuses the command itself: forbidden by its ACL, or renamed away."""

    def attempt(client: redis.Redis) -> dict[str, Any] | None:
        try:
            return dict(ask(client))
        except redis.ResponseError:
            return None

    return link.call(attempt)


def _version(info: dict[str, Any]) -> list[str]:
    version = str(info.get("redis_version", ""))
    major = version.split(".")[0]
    if major.isdigit() and int(major) < MIN_MAJOR:
        return [f"Redis is version {version}; gpuq needs {MIN_MAJOR}.0 or newer"]
    return []


def _memory(info: dict[str, Any]) -> list[str]:
    warnings = []
    policy = info.get("maxmemory_policy")
    if policy is None:
        warnings.append("Redis does not tell its maxmemory-policy; it must be noeviction")
    elif policy != "noeviction":
        warnings.append(
            f"Redis' maxmemory-policy is {policy}: it may throw waiting jobs or leases away when memory is short, and"
            " each time the queue must be rebuilt; set `maxmemory-policy noeviction`"
        )
    limit, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    if limit and used > NEARLY_FULL * limit:
        warnings.append(
            f"Redis uses {used / 2**20:.0f} MiB of the {limit / 2**20:.0f} MiB that its maxmemory allows; when they are"
            " used up it takes no new jobs until some memory is freed; raise maxmemory"
        )
    return warnings


def _role(info: dict[str, Any]) -> list[str]:
    if info.get("role") == "slave":
        return ["Redis is a replica and takes no writes; point GPUQ_REDIS_URL to its primary"]
    return []


def _persistence(link: RedisLink, info: dict[str, Any]) -> list[str]:
    warnings = []
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        warnings.append(
            "Redis could not write its last snapshot; until it can, it may refuse all writes: look at its disk and log"
        )
    if int(info.get("aof_enabled") or 0):
        if info.get("aof_last_write_status", "ok") != "ok":
            warnings.append("Redis cannot write its append-only file, and refuses writes: look at its disk and log")
        return warnings
    settings = _permitted(link, lambda client: client.config_get("save"))
    if settings is None:
        warnings.append("Redis forbids CONFIG GET, so its snapshot settings were not checked")
    elif not settings.get("save"):
        warnings.append(
            "Redis keeps nothing on disk: after its restart the queue is read back from the database; nothing starts"
            " during those seconds, and running jobs go on"
        )
    return warnings
