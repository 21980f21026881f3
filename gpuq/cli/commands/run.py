"""`gpuq run`: queues a command, shows its output, ends with its exit code."""

from __future__ import annotations

import sys

from gpuq.cli.commands.wait import wait_for
from gpuq.cli.connect import connect, say
from gpuq.cli.messages import submitted_line, tell_left_out
from gpuq.cli.parse.options import Args
from gpuq.client.watch import follow
from gpuq.errors import GpuqError, UsageError, WrongState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuq.client.calls import Calls

INTERRUPTED = 130


def run(args: Args) -> int:
    """Submits one job and follows its output; the exit code is the job's."""
    from gpuq.cli.parse.spec import build

    if args.flag("test_only") or args.flag("json") or args.flag("parsable"):
        # No output is streamed then: what is printed is that of `submit --wait`.
        from gpuq.cli.commands.submit import submit_and_wait

        return submit_and_wait(args)
    client = connect()
    for many in ("array", "sweep"):
        if args.given(many):
            raise UsageError(f"run follows one job; --{many} makes many", hint=f"use `gpuq submit --{many}`")
    if args.flag("hold"):
        raise UsageError("run waits for the job, --hold keeps it from running", hint="use `gpuq submit --hold`")
    client.require_daemon("`gpuq run`")
    # Whoever looks on decides for himself whether to run it again.
    job = client.post_jobs({"max_retries": 0, **build(args, client)}, outlook=True)
    tell_left_out(client)
    say(f"gpuq: {submitted_line(job)}")
    return _Follower(client, job["id"], max(1, job["attempt"])).follow()


class _Follower:
    """Streams a job's output to its end. The first Ctrl-C cancels the job, the second kills it, the third lets
    it be."""

    def __init__(self, client: Calls, job_id: int, attempt: int) -> None:
        self._client = client
        self._job_id = job_id
        self._interrupts = 0
        self._attempt = attempt
        self._begun = False
        self._offset = 0

    def follow(self) -> int:
        out = sys.stdout.buffer
        while True:
            try:
                for data in self._output():
                    # Counted before it is written: after a Ctrl-C in between, nothing is shown twice.
                    self._offset += len(data)
                    out.write(data)
                    out.flush()
                return self._end()
            except KeyboardInterrupt:
                self._interrupted()

    def _output(self) -> Iterator[bytes]:
        # Taken up where a Ctrl-C broke it off; from then on no later attempt is of interest.
        return follow(
            self._client,
            self._job_id,
            attempt=self._attempt,
            only=self._interrupts > 0,
            offset=self._offset,
            on_attempt=self._on_attempt,
        )

    def _on_attempt(self, number: int) -> None:
        if self._begun and number != self._attempt:
            say(f"gpuq: attempt {number}")
            self._offset = 0
        self._attempt, self._begun = number, True

    def _interrupted(self) -> None:
        self._interrupts += 1
        if self._interrupts > 2:
            raise KeyboardInterrupt
        force = self._interrupts == 2
        say(
            f"gpuq: killing job {self._job_id}"
            if force
            else f"gpuq: cancelling job {self._job_id}; Ctrl-C again kills it at once"
        )
        try:
            self._client.cancel(self._job_id, force=force, reason="Ctrl-C in gpuq run")
        except WrongState:
            # It ended by itself just now; its own end is what we report.
            return
        except GpuqError as error:
            say(f"gpuq: {error.message}; job {self._job_id} goes on: `gpuq cancel {self._job_id}`")
            raise KeyboardInterrupt from None

    def _end(self) -> int:
        [job], code = wait_for(self._client, [self._job_id])
        return INTERRUPTED if self._interrupts and job["state"] == "cancelled" else code
