"""The result that a job left: a file of its user's, which the daemon reads as it reads output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.results import RESULT
from gpuq.domain.states import FINAL
from gpuq.domain.times import iso
from gpuq.engine.access import may_read
from gpuq.engine.context import QueryContext
from gpuq.errors import NotFound, WrongState
from gpuq.ports.job_files import What
from gpuq.user_files import open_file


def require_ended(job: Job) -> None:
    """Raises WrongState for a job that may still leave another result."""
    if job.state not in FINAL:
        raise WrongState(
            f"job {job.id} is {job.state}; its result is there when it has ended", hint=f"`gpuq wait {job.id}` waits"
        )


def shown_to(ctx: QueryContext, caller: Caller, jobs: Sequence[Job]) -> list[Job]:
    """The jobs as the caller may see them: a short result may hold anything, as output may."""
    return [
        replace(job, short_result=None)
        if job.short_result is not None and not may_read(ctx.accounts, job.user, job.uid, caller)
        else job
        for job in jobs
    ]


def short_result(job: Job) -> str:
    """Raises NotFound where it left none, WrongState before its end."""
    require_ended(job)
    if job.short_result is None:
        raise NotFound(f"job {job.id} left no short result", hint="a job writes it to $GPUQ_SHORT_RESULT_FILE")
    return job.short_result


def open_result(ctx: QueryContext, job: Job) -> IO[bytes]:
    """The result of the job's last attempt, of exactly the size that its supervisor saw. Raises NotFound where there is
    none (any more), WrongState before its end."""
    require_ended(job)
    if job.result_bytes is None or job.run_dir is None:
        raise NotFound(f"job {job.id} left no result", hint="a job writes it to $GPUQ_RESULT_FILE")
    gone = ctx.files.removed(job.id, What.OUTPUT)
    try:
        fd = open_file(job.run_dir, RESULT, job.uid)
    except OSError:
        why = "" if gone is None else f" at {iso(gone.at)}: {gone.why}"
        raise NotFound(
            f"the result of job {job.id} was removed{why}", hint=f"`gpuq show {job.id}` tells how it ended"
        ) from None
    if os.fstat(fd).st_size != job.result_bytes:
        os.close(fd)
        raise NotFound(
            f"the result of job {job.id} was changed after its end: it had {job.result_bytes} bytes",
            hint=f"its owner finds what is there now in {job.run_dir}",
        )
    return os.fdopen(fd, "rb")
