"""What finished jobs have on the disk: measured, and removed without touching what may run.

Files go first, then a row says so: after a crash in between they are looked for again, and found gone. A job that is
put back in line meanwhile keeps what is not removed yet, and its next attempt has a number, and folders, that were not
there when this began.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gpuq.engine.context import CleaningContext
from gpuq.file_trees import Budget, measure, remove
from gpuq.ports.job_files import Ended, Sizes, What
from gpuq.user_files import owner_of_job

CHECKPOINTS = "checkpoint"
# Renamed before it is emptied: an attempt that starts meanwhile finds all of its checkpoints, or none.
_CONDEMNED = "checkpoint.removed"


@dataclass
class Freed:
    """What a removal came to. `jobs`: of which something was removed; bytes of blocks on the disk; `failed`: job id →
    why, for people."""

    jobs: set[int] = field(default_factory=set)
    output: int = 0
    checkpoints: int = 0
    failed: dict[int, str] = field(default_factory=dict)


def sizes(home: Path, job: Ended, budget: Budget) -> Sizes:
    """What the job has on the disk now; `budget` must not be spent. Raises OSError."""
    folder = _folder(home, job.id)
    left = budget.left
    checkpoints = measure(folder, CHECKPOINTS, budget)
    # An empty folder is none: every job is given one.
    found = checkpoints if budget.left < left else None
    output = records = 0
    there = False
    for number in range(1, job.attempt + 1):
        for name in (str(number), f"{number}.records"):
            there = there or os.path.lexists(f"{folder}/{name}")
        output += measure(folder, str(number), budget)
        records += measure(folder, f"{number}.records", budget)
    return Sizes(output, records, found) if there else Sizes(None, None, found)


def clean(
    ctx: CleaningContext, jobs: Iterable[Ended], kinds: Iterable[What], why: str, budget: Budget, freed: Freed
) -> bool:
    """Removes what these jobs have of these kinds and notes it. False when the budget was spent before the end; what is
    not removed then is left as it is, and found again. Raises DatabaseUnavailable."""
    todo = list(jobs)
    for what in kinds:
        gone: list[Ended] = []
        try:
            complete = all(_one(ctx, job, what, budget, freed, gone) for job in todo if _has(job, what))
        finally:
            _note(ctx, what, gone, why)
        if not complete:
            return False
    return True


def _has(job: Ended, what: What) -> bool:
    """As far as is known."""
    return job.sizes is None or (job.sizes.output if what is What.OUTPUT else job.sizes.checkpoints) is not None


def _one(ctx: CleaningContext, job: Ended, what: What, budget: Budget, freed: Freed, gone: list[Ended]) -> bool:
    """False: no more, the budget is spent."""
    if not ctx.files.still_ended(job.id, job.finished_at):
        freed.failed[job.id] = "it was put back in line, or is a dead letter now"
        return True
    try:
        done, size = _remove_output(ctx, job, budget) if what is What.OUTPUT else _remove_checkpoints(ctx, job, budget)
    except OSError as error:
        freed.failed[job.id] = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        return True
    if what is What.OUTPUT:
        freed.output += size
    else:
        freed.checkpoints += size
    if done:
        freed.jobs.add(job.id)
        gone.append(job)
    return done


def _note(ctx: CleaningContext, what: What, gone: list[Ended], why: str) -> None:
    nothing = Sizes(None, None, None)
    # A row is there only for what was measured once; the rest of such a job is measured with the next look.
    ctx.files.note_measured([(job, _left(ctx, job, nothing)) for job in gone if job.sizes is None])
    ctx.files.note_removed(what, [job.id for job in gone], ctx.clock.now(), why)


def _left(ctx: CleaningContext, job: Ended, otherwise: Sizes) -> Sizes:
    try:
        return sizes(ctx.home, job, Budget(20_000))
    except OSError:
        return otherwise


def _remove_output(ctx: CleaningContext, job: Ended, budget: Budget) -> tuple[bool, int]:
    folder = _folder(ctx.home, job.id)
    total = 0
    # No attempt beyond the last that this job had had when it ended: whatever has a higher number may run.
    for number in range(1, job.attempt + 1):
        if ctx.launcher.alive(f"{folder}/{number}"):
            raise BlockingIOError(f"a supervisor of attempt {number} is still there")
        # The records last: in them is the lock.
        for name, owner in ((str(number), owner_of_job(job.uid)), (f"{number}.records", os.geteuid())):
            done, freed = remove(folder, name, budget, owner)
            total += freed
            if not done:
                return False, total
    done, freed = remove(folder, _CONDEMNED, budget, owner_of_job(job.uid))
    if done:
        for empty in (Path(folder, CHECKPOINTS), Path(folder)):
            with contextlib.suppress(OSError):
                empty.rmdir()
    return done, total + freed


def _remove_checkpoints(ctx: CleaningContext, job: Ended, budget: Budget) -> tuple[bool, int]:
    folder = _folder(ctx.home, job.id)
    # What an earlier run did not get through, so that its name is free.
    done, total = remove(folder, _CONDEMNED, budget, owner_of_job(job.uid))
    if not done:
        return False, total
    with contextlib.suppress(FileNotFoundError):
        Path(folder, CHECKPOINTS).rename(Path(folder, _CONDEMNED))
    done, freed = remove(folder, _CONDEMNED, budget, owner_of_job(job.uid))
    if done:
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return done, total + freed


def _folder(home: Path, job_id: int) -> str:
    return f"{home}/jobs/{job_id}"
