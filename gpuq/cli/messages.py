"""What commands tell a person: about an error, about a job, and about jobs that they act on one after another."""

from __future__ import annotations

import sys

from gpuq.errors import GpuqError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from gpuq.client.calls import Calls

_LONGEST = 800


def tell(error: GpuqError) -> int:
    """Message and hint on stderr, a line each; returns the exit code."""
    from gpuq.cli.render import local_times, printable

    text = local_times(printable(" ".join(error.message.split())))
    # What it is about may be a word of any length.
    print(f"gpuq: {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(error.hint)}", file=sys.stderr)
    return error.exit_code


def job_line(job: Any) -> str:
    """`job 7 (train.py) is queued, position 3, starts about 14:20`."""
    from gpuq.cli.render import about, printable

    text = f"job {job['id']} ({printable(job['name'])}) is {job['state']}"
    if job["position"] is not None:
        text += f", position {job['position']}"
    if job["estimated_start"] and job["state"] in {"queued", "blocked", "delayed"}:
        text += f", starts about {about(job['estimated_start'], job.get('estimated_start_range'))}"
    return text


def submitted_line(job: Any) -> str:
    """`job_line`, and why the job waits where that is news."""
    reason = job["reason"]
    told = reason and reason["code"] not in {"Priority", "Resources", "Starting"}
    if not told:
        return job_line(job)
    from gpuq.cli.render import local_times, printable

    return f"{job_line(job)}: {printable(local_times(reason['text']))}"


def tell_left_out(client: Calls) -> None:
    """Of secrets that an earlier release does not take."""
    if client.left_out:
        from gpuq.cli.connect import say

        say(
            f"gpuq: left out, because the daemon is of an earlier release, which keeps no secrets:"
            f" {', '.join(client.left_out)} (restart it, or use --env-keep NAME)"
        )


def act_on_each(ids: Iterable[int], act: Callable[[int], object]) -> int:
    """Every job in turn: one that cannot be done is told on stderr in the end and does not keep the others from being
    done. Returns the largest exit code. Raises Unavailable, because the next one would fare no better."""
    refused: list[tuple[int, GpuqError]] = []
    try:
        for job_id in ids:
            try:
                act(job_id)
            except Unavailable:
                raise
            except GpuqError as error:
                refused.append((job_id, error))
    finally:
        code = tell_refused(refused)
    return code


# Lines about refusals that are told in full.
_TOLD = 10


def tell_refused(refused: list[tuple[int, GpuqError]]) -> int:
    """What kept which jobs from being changed, on stderr: jobs of which the same is to be said in one line, and after
    some lines only how many there are of each kind. Returns the largest exit code."""
    same: dict[str, list[tuple[int, GpuqError]]] = {}
    for job_id, error in refused:
        same.setdefault(error.message.removeprefix(f"job {job_id} is "), []).append((job_id, error))
    more: dict[str, int] = {}
    for place, (text, jobs) in enumerate(same.items()):
        job_id, error = jobs[0]
        if place >= _TOLD:
            more[error.code] = more.get(error.code, 0) + len(jobs)
        elif len(jobs) == 1 or text == error.message:
            tell(error)
        else:
            hint = error.hint if error.hint and str(job_id) not in error.hint else None
            tell(type(error)(f"jobs {spans(one for one, _ in jobs)} are {text}", hint=hint))
    if more:
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(more.items()))
        print(f"gpuq: {len(refused):,} jobs were refused; those not told here: {counts}", file=sys.stderr)
    return max((error.exit_code for _, error in refused), default=0)


def spans(ids: Iterable[int]) -> str:
    """`1-3, 7`; of many pieces the first."""
    found: list[list[int]] = []
    for one in sorted(ids):
        if found and found[-1][1] == one - 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in found[:_TOLD]]
    return ", ".join([*shown, "…"] if len(found) > _TOLD else shown)
