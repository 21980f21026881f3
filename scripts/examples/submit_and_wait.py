"""Submits a job and one that waits for it, follows them to their end, and shows how the queue's answers are used.

    python scripts/examples/submit_and_wait.py

Needs a running daemon (`gpuq up -d`). Without GPUs to spare, start it with GPUQ_GPUS=sim:2.
"""

from __future__ import annotations

import sys

from gpuq import Client, DaemonUnreachable, Job, NotFound


def describe(job: Job) -> str:
    """One line about a job that has ended."""
    ran = (job.finished_at - job.started_at).total_seconds() if job.started_at and job.finished_at else 0.0
    end = "" if job.exit_code is None else f" with exit code {job.exit_code}"
    return f"job {job.id} ({job.name}) {job.state}{end} after {ran:.1f} s on GPUs {list(job.gpu_indices or ())}"


def main() -> int:
    """The exit code: 0 when both jobs completed."""
    with Client(direct=False) as client:
        first = client.submit(
            ["sh", "-c", "sleep 1; echo trained on $GPUQ_GPU_COUNT GPUs"],
            name="train",
            gpus=2,
            time_limit_s=60,
            max_retries=0,
        )
        second = client.submit(["echo", "evaluated"], name="evaluate", gpus=1, after=[first])
        why = second.why()
        if why.reason is not None:
            print(f"job {second.id} waits: {why.reason.text}")
        ended = [job.refresh() for job in client.wait(first, second, timeout_s=120)]
        for job in ended:
            print(describe(job))
            print("  " + job.logs().strip())
            for attempt in job.attempts:
                print(f"  attempt {attempt.number}: {attempt.outcome}")
        try:
            client.job(max(job.id for job in ended) + 1_000_000)
        except NotFound as error:
            print(f"as expected: {error}")
    return 0 if all(job.state == "completed" for job in ended) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DaemonUnreachable as error:
        sys.exit(f"{error} ({error.hint})")
