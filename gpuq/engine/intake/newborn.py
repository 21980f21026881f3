"""A job that was just stored, as those see it who would else have to read it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.priority import Ranking
from gpuq.domain.spec import JobSpec
from gpuq.ports.records import NewJob, Waiting

# Stands behind every job of the same score, as a job submitted now would.
UNBORN = 2**62


def waiting_of(job_id: int, new: NewJob, array_id: int | None) -> Waiting:
    """The facts that the scheduler needs of a job that is queued. `array_id`: of the array that it is an element of."""
    spec = new.spec
    return Waiting(
        id=job_id,
        score=new.score,
        priority=spec.priority,
        user=new.user,
        uid=new.uid,
        group=spec.group,
        gpus=spec.gpus,
        gpu_mem_mb=spec.gpu_mem_mb,
        gpu_model=spec.gpu_model,
        gpu_ids=None if spec.gpu_ids is None else tuple(spec.gpu_ids),
        time_limit_s=spec.time_limit_s,
        preemptible=spec.preemptible,
        array_id=array_id,
        array_limit=new.array_limit,
        submitted_at=new.submitted_at,
        command=tuple(new.command),
        attempt=0,
    )


def waiting_of_all(jobs: Iterable[tuple[int, NewJob]]) -> Iterator[Waiting]:
    """Of the queued jobs of one submission, by id. The elements of an array are queued all or none."""
    array_id: int | None = None
    for job_id, new in jobs:
        if new.array_first:
            array_id = job_id
        yield waiting_of(job_id, new, None if new.array_index is None else array_id)


def foreseen(spec: JobSpec, caller: Caller, rule: Ranking, now: float) -> Waiting | None:
    """What will be known of a job that is submitted now and queued at once, for a plan in which it is alone, where its
    place in line does not matter; None for one that may have to wait for more than GPUs, or may be there already."""
    if spec.hold or spec.after or spec.after_any or spec.makes_many or not (spec.begin is spec.key is None):
        return None
    return Waiting(
        id=UNBORN,
        score=rule.score(spec.priority, now, spec.time_limit_s),
        priority=spec.priority,
        user=caller.user,
        uid=caller.uid,
        group=spec.group,
        gpus=spec.gpus,
        gpu_mem_mb=spec.gpu_mem_mb,
        gpu_model=spec.gpu_model,
        gpu_ids=None if spec.gpu_ids is None else tuple(spec.gpu_ids),
        time_limit_s=spec.time_limit_s,
        preemptible=spec.preemptible,
        array_id=None,
        array_limit=None,
        submitted_at=now,
        command=tuple(spec.command),
        attempt=0,
    )


def job_of(job_id: int, new: NewJob) -> Job:
    """The row of a job that was just stored, and is no element of an array."""
    spec = new.spec
    return Job(
        id=job_id,
        name=new.name,
        user=new.user,
        uid=new.uid,
        group=spec.group,
        state=new.state,
        priority=spec.priority,
        score=new.score,
        command=tuple(spec.command),
        cwd=new.cwd,
        gpus=spec.gpus,
        gpu_mem_mb=spec.gpu_mem_mb,
        gpu_model=spec.gpu_model,
        gpu_ids=None if spec.gpu_ids is None else tuple(spec.gpu_ids),
        time_limit_s=spec.time_limit_s,
        max_retries=new.max_retries,
        retries_used=0,
        lost_count=0,
        attempt=0,
        token=None,
        key=spec.key,
        preemptible=spec.preemptible,
        array_id=None,
        array_index=None,
        array_limit=None,
        after=tuple(spec.after),
        after_any=tuple(spec.after_any),
        submitted_at=new.submitted_at,
        eligible_at=new.eligible_at,
        held_by=new.held_by,
        stop_reason=None,
        stop_deadline=None,
        started_at=None,
        finished_at=None,
        outcome=None,
        exit_code=None,
        signal=None,
        error=None,
        node=None,
        gpu_indices=None,
        gpu_uuids=None,
        pid=None,
        log_path=None,
        run_dir=None,
        peak_gpu_mem_mb=None,
    )
