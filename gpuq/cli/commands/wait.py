"""`gpuq wait`, and what every command does that ends when jobs do."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.exit_code import TIME_LIMIT, of_job
from gpuq.cli.parse.options import Args
from gpuq.client.watch import wait as wait_until_final

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls


def wait(args: Args) -> int:
    """Waits until the chosen jobs are final; the exit code is theirs, or that of a time limit after `--timeout`
    seconds."""
    from gpuq.cli.parse.select import ACTIVE, WAITING, select

    client = connect()
    ids = select(client, args, WAITING + ACTIVE, elements_too=True)
    timeout = args.seconds("timeout")
    try:
        jobs, code = wait_for(client, ids, timeout)
    except TimeoutError as error:
        say(f"gpuq: {error}")
        return TIME_LIMIT
    if args.flag("json"):
        print_json(jobs)
    return code


def wait_for(client: Calls, ids: list[int], timeout_s: float | None = None) -> tuple[list[Any], int]:
    """The final jobs and the largest of their exit codes; stderr is told of those that did not succeed."""
    jobs = wait_until_final(client, ids, timeout_s)
    for job in jobs:
        if of_job(job):
            say(f"gpuq: job {job['id']} {_ended(job)}")
    return jobs, max((of_job(job) for job in jobs), default=0)


def _ended(job: Any) -> str:
    from gpuq.cli.commands.job_detail import ending

    how = ending(job)
    return f"{job['state']}: {how}" if how and how != job["state"] else str(job["state"])
