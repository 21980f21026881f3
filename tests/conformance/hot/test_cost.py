"""What a long queue costs: bytes exactly, time with a wide margin for slow machines."""

from __future__ import annotations

import time

import pytest

from gpuq.ports.hot_queue import Member
from gpuq.stores.redis import RedisHotQueue, connect

pytestmark = pytest.mark.redis

WAITING = 100_000


def test_a_hundred_thousand_waiting_jobs_are_small_and_their_heads_are_found_at_once(redis_url: str) -> None:
    link = connect(redis_url, "gpuq")
    queue = RedisHotQueue(link, expected_epoch=lambda: "e1")
    before = link.client.info("memory")["used_memory"]
    line = [Member(job_id, (0, 1, 2, 4, 8)[job_id % 5], 2e11 + 1.79e9 + job_id * 0.137) for job_id in range(WAITING)]
    begun = time.perf_counter()
    assert queue.rebuild(line, epoch="e1") == WAITING
    queue.open("e1")
    rebuilt_s = time.perf_counter() - begun
    per_job = (link.client.info("memory")["used_memory"] - before) / WAITING
    begun = time.perf_counter()
    for _ in range(20):
        assert queue.heads(64) == line[: 64 * 5]
    heads_s = (time.perf_counter() - begun) / 20
    link.client.flushall()
    link.close()
    assert per_job <= 200
    assert rebuilt_s <= 5
    assert heads_s <= 0.02
