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
    """Every job in turn: one that cannot be done is told on stderr and does not keep the others from being done.
    Returns the largest exit code. Raises Unavailable, because the next one would fare no better."""
    code = 0
    for job_id in ids:
        try:
            act(job_id)
        except Unavailable:
            raise
        except GpuqError as error:
            code = max(code, tell(error))
    return code
