"""Builders: what a test does not say is the plainest value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.priority import Priority, score
from gpuq.scheduler.snapshot import Candidate, Device, Holding, Policy, Snapshot


def candidate(job_id: int, gpus: int = 1, expected_s: float = 100.0, **facts: Any) -> Candidate:
    submitted_at = facts.pop("submitted_at", float(job_id))
    priority = facts.get("priority", Priority.NORMAL)
    placed = score(priority, submitted_at, facts.get("time_limit_s"))
    return Candidate(
        **{
            "id": job_id,
            "score": placed,
            "priority": priority,
            "user": "alice",
            "gpus": gpus,
            "expected_s": expected_s,
            "submitted_at": submitted_at,
            **facts,
        }
    )


def held(job_id: int, *indices: int, until: float = 1000.0, **facts: Any) -> Holding:
    """On these GPUs since 0, expected to end at `until`."""
    uuids = tuple(f"gpu{index}" for index in indices)
    return Holding(
        **{"job_id": job_id, "user": "bob", "gpu_uuids": uuids, "started_at": 0.0, "expected_s": until, **facts}
    )


def box(count: int, **facts: Any) -> list[Device]:
    return [Device(**{"uuid": f"gpu{index}", "index": index, "memory_mb": 24_000, **facts}) for index in range(count)]


def seen(
    devices: list[Device], waiting: list[Candidate], holdings: list[Holding] | None = None, **facts: Any
) -> Snapshot:
    return Snapshot(devices, holdings or [], sorted(waiting, key=lambda job: (job.score, job.id)), **facts)


@pytest.fixture
def build() -> Any:
    class Build:
        job: Callable[..., Candidate] = staticmethod(candidate)
        held: Callable[..., Holding] = staticmethod(held)
        box: Callable[..., list[Device]] = staticmethod(box)
        seen: Callable[..., Snapshot] = staticmethod(seen)
        policy = Policy

    return Build
