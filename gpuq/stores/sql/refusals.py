"""What a guarded write says that found something else than it expected."""

from __future__ import annotations

from gpuq.domain.states import JobState
from gpuq.errors import GpuqError, LeaseLost, WrongState
from gpuq.ports.records import Move


def refusal(change: Move, now: JobState, attempt: int) -> GpuqError:
    """The error for a move that did not find the attempt or the state that it is for."""
    if change.token is not None:
        return LeaseLost(
            f"job {change.job_id}: attempt {change.attempt} is no longer the live one"
            f" (the job is {now}, attempt {attempt})",
            hint="nothing to do: whoever holds the job now goes on",
        )
    return wrong_state(change.job_id, now, change.expect)


def wrong_state(job_id: int, now: JobState, expect: frozenset[JobState]) -> WrongState:
    """The error for a job that is not in one of the expected states."""
    wanted = " or ".join(sorted(expect))
    return WrongState(f"job {job_id} is {now}, not {wanted}", hint=f"`gpuq show {job_id}` tells what happened to it")
