"""Cleaning up by hand: what finished jobs have left on the disk goes when their owner says so."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from gpuq.domain.caller import Caller
from gpuq.domain.states import FINAL, JobState
from gpuq.engine.access import may_act_on, require_owner, whose_jobs
from gpuq.engine.cleaning import Freed, clean, sizes
from gpuq.engine.context import ActionContext
from gpuq.errors import Refused, UsageError, WrongState
from gpuq.file_trees import Budget
from gpuq.ports.job_files import Choice, Ended, Sizes, Totals, What
from gpuq.ports.records import JobFilter

# Of one call, which others wait for: jobs of which something is removed; files and folders removed, and looked at.
JOBS = 100
NAMES = 5000
_NAMES_MEASURED = 20_000
# Folders of jobs that ended just now, which nobody has measured yet.
_JOBS_MEASURED = 500
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Step:
    """What one call removed; `next_after_id`: where to go on, None at the end."""

    freed: Freed
    next_after_id: int | None


def chosen(ctx: ActionContext, caller: Caller, choice: Choice) -> Choice:
    """What the caller may mean by it. Raises Forbidden; UsageError for a state that is not final; of jobs that are
    named by id also NotFound, WrongState for one that has not ended, and Refused for a dead letter."""
    if choice.states is not None and not choice.states <= FINAL:
        raise UsageError("state: only what has ended can be cleaned", hint="known: " + ", ".join(sorted(FINAL)))
    if choice.ids is None:
        return replace(choice, user=whose_jobs(caller, choice.user))
    with ctx.records.read() as tx:
        jobs = {job.id: job for job in tx.jobs(JobFilter(ids=choice.ids))}
        for job_id in choice.ids:
            job = jobs.get(job_id) or tx.job(job_id)
            require_owner(job, caller, "clean")
            _require_ended(job_id, job.state)
            if job.state is JobState.FAILED and tx.dead_letter(job_id) is not None:
                hint = f"`gpuq dlq purge {job_id}` drops the letter, then it can be cleaned"
                raise Refused(f"job {job_id} is a dead letter, which keeps its output", hint=hint)
    return choice


def _require_ended(job_id: int, state: JobState) -> None:
    if state not in FINAL:
        raise WrongState(f"job {job_id} is {state}; only what has ended can be cleaned")


def preview(ctx: ActionContext, caller: Caller, choice: Choice) -> Totals:
    """What there is to remove. Raises as `chosen` does."""
    choice = chosen(ctx, caller, choice)
    budget = Budget(_NAMES_MEASURED, _rest)
    found: list[tuple[Ended, Sizes]] = []
    for job in ctx.files.not_measured(choice, _JOBS_MEASURED):
        if budget.spent:
            break
        found.append((job, sizes(ctx.home, job, budget)))
    ctx.files.note_measured(found[:-1] if budget.spent else found)
    return ctx.files.totals(choice)


def remove(ctx: ActionContext, caller: Caller, choice: Choice, after_id: int) -> Step:
    """Removes a part of it, of jobs with greater ids than `after_id`; called again until nothing is left. Raises as
    `chosen` does, and DatabaseUnavailable: what was removed stays removed, and may be asked for again."""
    choice = chosen(ctx, caller, choice)
    jobs = ctx.files.chosen(choice, after_id=after_id, limit=JOBS)
    freed = Freed()
    mine = [job for job in jobs if may_act_on(job.user, job.uid, caller)]
    kinds = [What.OUTPUT, What.CHECKPOINTS] if choice.checkpoints else [What.OUTPUT]
    if not clean(ctx, mine, kinds, f"cleaned by {caller.user}", Budget(NAMES, _rest), freed):
        # What is done is not found again.
        return Step(freed, after_id)
    return Step(freed, jobs[-1].id if len(jobs) == JOBS else None)


def _rest() -> bool:
    """Between many removals the disk is for others, too."""
    time.sleep(_PAUSE_S)
    return False
