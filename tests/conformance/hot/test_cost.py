"""What a long queue costs: bytes, and commands that the server runs."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.ports.hot_queue import QueueEntry
from gpuq.stores.redis import RedisHotQueue, connect

pytestmark = pytest.mark.redis

WAITING = 100_000


def commands(client: Any) -> int:
    """How many commands the server has run, those inside scripts included."""
    return sum(int(stats["calls"]) for stats in client.info("commandstats").values())


def test_a_hundred_thousand_waiting_jobs_are_small_and_their_heads_found_with_no_more_commands(redis_url: str) -> None:
    link = connect(redis_url, "gpuq")
    queue = RedisHotQueue(link, expected_epoch=lambda: "e1")
    empty = link.client.info("memory")["used_memory"]
    line = [
        QueueEntry(job_id, (0, 1, 2, 4, 8)[job_id % 5], 2e11 + 1.79e9 + job_id * 0.137) for job_id in range(WAITING)
    ]
    cost = []
    for count in (1000, WAITING):
        assert queue.rebuild(line[:count], epoch="e1") == count
        queue.open("e1")
        queue.heads(64)
        before = commands(link.client)
        assert queue.heads(64) == line[: 64 * 5]
        cost.append(commands(link.client) - before)
    per_job = (link.client.info("memory")["used_memory"] - empty) / WAITING
    link.client.flushall()
    link.close()
    assert per_job <= 200
    assert cost[1] == cost[0]
