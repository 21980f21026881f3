"""When a job ends, those that wait for it are looked at in the same transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gpuq.domain.caller import ACTOR
from gpuq.domain.eligibility import begin_time, waiting_state
from gpuq.domain.states import FINAL, JobState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.records import Dependency, Move, ReadyDependent, Writer


def is_open(dependency: Dependency, changed: Mapping[int, JobState]) -> bool:
    """Whether it is not satisfied yet (or never will be). `changed`: states that are newer than those of the record."""
    state = changed.get(dependency.on_id, dependency.state)
    return state is not JobState.COMPLETED if dependency.kind == "success" else state not in FINAL


def wake_dependents(tx: Writer, ended_id: int, now: float) -> list[QueueEntry]:
    """Moves every blocked dependent with nothing left open; returns those that are now queued."""
    freed: list[QueueEntry] = []
    for job in tx.ready_dependents(ended_id):
        move = _wake(job, ended_id, now)
        tx.move(move)
        if move.to is JobState.QUEUED:
            freed.append(QueueEntry(job.id, job.gpus, job.score))
    return freed


def wake_dependents_of(tx: Writer, ended: Collection[int], now: float) -> list[QueueEntry]:
    """As `wake_dependents` for all of these."""
    ready = tx.ready_dependents_of(ended)
    moves = [_wake(job, on_id, now) for on_id, job in ready]
    tx.move_many(moves)
    return [
        QueueEntry(job.id, job.gpus, job.score)
        for (_, job), move in zip(ready, moves, strict=True)
        if move.to is JobState.QUEUED
    ]


def _wake(job: ReadyDependent, ended_id: int, now: float) -> Move:
    begin = begin_time(job.begin)
    target = waiting_state(False, begin, now)
    return Move(
        job.id,
        target,
        frozenset({JobState.BLOCKED}),
        ACTOR,
        now,
        detail=f"job {ended_id} ended; nothing left to wait for",
        set={"eligible_at": begin} if target is JobState.DELAYED else {},
        seen=(JobState.BLOCKED, job.attempt, job.token),
    )
