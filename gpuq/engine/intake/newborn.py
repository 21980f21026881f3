"""A job that was just stored, as those see it who would else have to read it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpuq.ports.records import NewJob, Waiting


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
        command=tuple(spec.command),
        attempt=0,
    )


def waiting_of_all(jobs: Iterable[tuple[int, NewJob]]) -> Iterator[Waiting]:
    """Of the queued jobs of one submission, by id. The elements of an array are queued all or none."""
    array_id: int | None = None
    for job_id, new in jobs:
        if new.array_first:
            array_id = job_id
        yield waiting_of(job_id, new, None if new.array_index is None else array_id)
