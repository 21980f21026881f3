"""When a job ends, those that wait for it are looked at in the same transaction.

Who waited for nothing else goes on. Who was to run after its success, which will not come, is cancelled, unless it was
submitted to keep waiting; and so is who was to run after that one. Nobody looks again later: a job that a person
retries, releases or left waiting under an earlier release stays blocked until the other one ends (again).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gpuq.domain.caller import ACTOR
from gpuq.domain.eligibility import begin_time, waiting_state
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import FINAL, JobState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.records import Dependency, HopelessDependent, Move, ReadyDependent, Writer


def is_open(dependency: Dependency, changed: Mapping[int, JobState]) -> bool:
    """Whether it is not satisfied yet (or never will be). `changed`: states that are newer than those of the record."""
    state = changed.get(dependency.on_id, dependency.state)
    return state is not JobState.COMPLETED if dependency.kind == "success" else state not in FINAL


def settle_dependents(tx: Writer, ended_id: int, state: JobState, now: float) -> list[QueueEntry]:
    """Of a job that is final now: cancels every dependent that waited for its success in vain, and moves every blocked
    one with nothing left open; returns those that are now queued."""
    lost = [] if state is JobState.COMPLETED else _cancel_hopeless(tx, [ended_id], now)
    return wake_dependents_of(tx, [ended_id, *lost], now) if lost else wake_dependents(tx, ended_id, now)


def settle_dependents_of(tx: Writer, cancelled: Collection[int], now: float) -> list[QueueEntry]:
    """As `settle_dependents` for all of these, which were cancelled."""
    return wake_dependents_of(tx, [*cancelled, *_cancel_hopeless(tx, cancelled, now)], now)


def _cancel_hopeless(tx: Writer, ended: Collection[int], now: float) -> list[int]:
    """Of jobs that did not succeed; returns the ids. As many statements for ten thousand as for one."""
    lost = tx.hopeless_dependents_of(ended)
    ids = {job.id for job in lost}
    tx.move_many([_lose(job, cancelled=job.on_id in ids, now=now) for job in lost])
    return sorted(ids)


def _lose(job: HopelessDependent, *, cancelled: bool, now: float) -> Move:
    """`cancelled`: the other job is cancelled in this very step."""
    text = f"job {job.on_id} {_how(job, cancelled)}, and this job was to run only after its success"
    return Move(
        job.id,
        JobState.CANCELLED,
        frozenset({job.state}),
        ACTOR,
        now,
        detail=text,
        set={"outcome": Outcome.CANCELLED, "finished_at": now, "error": text},
        seen=(job.state, job.attempt, job.token),
    )


def _how(job: HopelessDependent, cancelled: bool) -> str:
    if cancelled or job.on_state is not JobState.FAILED:
        return "was cancelled"
    return f"failed ({f'exit code {job.exit_code}' if job.exit_code else job.outcome})"


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
