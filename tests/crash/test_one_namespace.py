"""Two installations on one namespace of Redis refuse each other; a moved or restored one goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis


def test_a_second_installation_is_refused_by_the_namespace_of_the_first(
    make_box: Callable[..., Any], redis_url: str
) -> None:
    first, second = (make_box(GPUQ_REDIS_URL=redis_url, GPUQ_NODE=name) for name in ("one", "two"))
    first.up()
    for words in (("up", "-d"), ("up",), ("maintain",)):
        told = second.gpuq(*words, code=4).stderr
        assert f"belongs to another installation: home {first.home} on one, database {first.home}/gpuq.db" in told
        assert "hint: give each installation a GPUQ_NAMESPACE of its own" in told
        assert "redis-cli DEL gpuq:owner" in told
    job = first.submit("-g", "0", "--", "true")
    first.until_state(job, "completed")
    # The same database elsewhere is the same installation.
    backup = first.home / "backup.db"
    first.gpuq("db", "backup", str(backup))
    first.down()
    moved = make_box(GPUQ_REDIS_URL=redis_url, GPUQ_NODE="three")
    moved.gpuq("db", "restore", str(backup), "--yes")
    moved.up()
    moved.until_state(moved.submit("-g", "0", "--", "true"), "completed")
    # The way on, when that one is gone for good; it finds out if it is not.
    with redis.Redis.from_url(redis_url) as client:
        client.delete("gpuq:owner")
    second.up()
    second.until_state(second.submit("-g", "0", "--", "true"), "completed")
    waiting = moved.submit("-g", "0", "--", "true")

    def told_why() -> bool:
        reason = moved.json("why", str(waiting))["reason"]
        return reason["code"] == "LaunchTrouble" and f"another installation: home {second.home}" in reason["text"]

    moved.until(told_why, "the reason is told")
    assert moved.show(waiting)["state"] == "queued"
