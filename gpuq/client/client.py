"""The queue as typed Python calls: `from gpuq import Client`.

Made for programs. The command line uses the JSON layer below it, which costs it no import of `dataclasses` or `typing`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack, cast, overload

from gpuq.client.administration import Administration
from gpuq.client.calls import LogChunk
from gpuq.client.job import Job, Queue
from gpuq.client.submission import Options, Submission, Update, moment_text, submission_json
from gpuq.client.values import Check, Why


class Client(Administration):
    """The queue. `Client().submit(["python", "train.py"], gpus=2).wait()` returns the job when it has ended.

    Finds the daemon as the command line does; `server` (`unix://PATH`, `http(s)://HOST:PORT`) and `token` override
    that. When no daemon runs on this home (and none was named), calls work straight on the database and nothing starts
    until `gpuq up`; `on_direct` is called once then, and `direct=False` raises DaemonUnreachable instead.

    Threads may share a client: each gets a connection of its own. A connection lost in mid-call is made again and
    the call repeated where that does no harm: reading always, submitting because a request carries a key that the
    daemon recognises. Every call raises the errors of `gpuq.errors` as the daemon raised them: UsageError for what is
    malformed, NotFound for a job that is none, Refused (Forbidden, WrongState, Constraint) for what may not be done,
    Unavailable (DaemonUnreachable) for what may be tried again later.
    """

    # -- submitting -------------------------------------------------------------------------------------------

    @overload
    def submit(
        self,
        command: Sequence[str],
        *,
        array: None = None,
        request_key: str | None = None,
        **options: Unpack[Options],
    ) -> Job: ...

    @overload
    def submit(
        self, command: Sequence[str], *, array: str, request_key: str | None = None, **options: Unpack[Options]
    ) -> list[Job]: ...

    def submit(
        self,
        command: Sequence[str],
        *,
        name: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        umask: int | None = None,
        limits: Mapping[str, int] | None = None,
        nice: int | None = None,
        gpus: int = 1,
        gpu_mem_mb: int | None = None,
        gpu_model: str | None = None,
        gpu_ids: Sequence[int] | None = None,
        priority: str | int = "normal",
        group: str | None = None,
        time_limit_s: float | None = None,
        max_retries: int | None = None,
        after: Sequence[int | Job] = (),
        after_any: Sequence[int | Job] = (),
        begin: datetime | float | str | None = None,
        array: str | None = None,
        hold: bool = False,
        key: str | None = None,
        preemptible: bool = False,
        signal: str | None = None,
        kill_grace_s: float | None = None,
        script: str | None = None,
        requeue: bool = False,
        keep_waiting: bool = False,
        sweep: Mapping[str, str | Sequence[str | float]] | None = None,
        request_key: str | None = None,
    ) -> Job | list[Job]:
        """Queues a command; durable on return. The job, or the list of them when `array` or `sweep` is given.

        Args:
            command: program and arguments; no shell looks at them.
            name: for people; the program's name unless given.
            cwd: directory it runs in; None: the current one.
            env: its environment; None: this process's, with the variables whose names look like secrets apart. Over TCP
                nothing of it: name what the job needs.
            secrets: variables as those of `env`, which come first; kept encrypted, and deleted with the job's end.
            umask: that it starts with; None: this process's, or over TCP 022.
            limits: soft limits by name (`nofile`), -1 for none; None: this process's, or over TCP the daemon's.
            nice: 0 to 19; None: this process's, or over TCP the daemon's.
            gpus: how many; 0: none.
            gpu_mem_mb: MiB of each GPU, for sharing them with others; None: alone.
            gpu_model: only GPUs whose model contains this.
            gpu_ids: only GPUs with these indices.
            priority: critical, high, normal or low, or 0 to 3.
            group: name of the group that it counts for.
            time_limit_s: seconds after which an attempt is stopped; None: no limit.
            max_retries: how often it is run again after a failure; None: as the server is set.
            after: jobs that must have succeeded before it.
            after_any: jobs that must have ended before it, in whatever way.
            begin: not before this time: a `datetime` (a naive one is local time), epoch seconds or ISO 8601.
            array: `0-15`, `0-15:2` or `0-15:2%4`: indices, step, how many may run at once.
            hold: waits until it is released.
            key: while a live or successful job has the same key, that one is returned and nothing queued.
            preemptible: may be stopped and queued again for the sake of others.
            signal: `USR1@60`: that signal, 60 seconds before the time limit or a preemption.
            kill_grace_s: seconds between SIGTERM and SIGKILL; None: as the server is set.
            script: text of a batch script, which is run with the arguments of `command`; the first word of that is then
                only what the script is called.
            requeue: goes back in line at its time limit, or with exit code 75; no retry is used.
            keep_waiting: when a job of `after` fails or is cancelled, stays blocked instead of being cancelled with it.
            sweep: values by name, each as `1e-3,1e-4`, `0..4` or a list: a job for each combination, with `{name}` in
                its command and name replaced.
            request_key: makes a repeated call return the same job; None: a new one for each call.

        Raises:
            UsageError: a field is malformed.
            Constraint: it could never run on this machine.
            Refused: a limit of the queue or of this user is reached.
            NotFound: a job in `after` or `after_any` is none.
        """
        given = {name: value for name, value in locals().items() if name not in {"self", "request_key"}}
        taken = self.session.taken_over()
        for field in ("umask", "limits", "nice"):
            if given[field] is None:
                given[field] = taken.get(field)
        if env is None:
            given["env"] = taken.get("env")
            given["secrets"] = {**taken.get("secrets", {}), **(secrets or {})} or None
        if cwd is None:
            given["cwd"] = os.getcwd()
        answer = self.session.post_jobs(submission_json(cast(Submission, given)), request_key=request_key)
        return self._jobs(answer) if isinstance(answer, list) else self._job(answer)

    def submit_many(self, specs: Iterable[Submission], *, request_key: str | None = None) -> list[Job]:
        """Queues all or none, in one transaction; each as it stands, so with no environment unless it has one.
        Raises as `submit`."""
        return self._jobs(self.session.submit_many([submission_json(spec) for spec in specs], request_key=request_key))

    def check(self, spec: Submission) -> Check:
        """Whether the job could be queued, and when it would start; queues nothing. Raises UsageError for a malformed
        one; what is against a well-formed one is in the answer."""
        return Check.from_json(self.session.check(submission_json(spec)))

    # -- looking ----------------------------------------------------------------------------------------------

    def job(self, job_id: int) -> Job:
        """One job with its attempts and events. Raises NotFound."""
        return self._job(self.session.job(job_id))

    def jobs(
        self,
        *,
        state: str | Iterable[str] | None = None,
        user: str | None = None,
        group: str | None = None,
        name: str | None = None,
        ids: Iterable[int] | None = None,
        array_id: int | None = None,
        after_id: int | None = None,
        newest_first: bool = False,
        limit: int = 1000,
    ) -> list[Job]:
        """Jobs in every state by id, at most `limit`; None is no filter. `after_id`: only larger ids, for paging.
        `ids`: no error for one that no job has."""
        found = self.session.jobs(
            state=_commas(state), user=user, group=group, name=name, ids=_commas(ids), array_id=array_id,
            after_id=after_id, newest_first="true" if newest_first else None, limit=limit,
        )  # fmt: skip
        return self._jobs(found)

    def queue(self, *, limit: int | None = None, offset: int = 0, user: str | None = None) -> Queue:
        """Running jobs, then waiting ones in the order in which they stand in line; `limit` None: all."""
        return Queue.from_json(self.session.queue(limit=limit, offset=offset, user=user), self)

    def history(
        self,
        *,
        state: str | Iterable[str] | None = None,
        user: str | None = None,
        group: str | None = None,
        name: str | None = None,
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
        limit: int = 1000,
    ) -> list[Job]:
        """Finished jobs, newest first, at most `limit`. `since` and `until` cut by the end of a job: a `datetime` (a
        naive one is local time), epoch seconds or ISO 8601. Raises UsageError for a state that is not final."""
        found = self.session.history(
            state=_commas(state), user=user, group=group, name=name, since=moment_text(since),
            until=moment_text(until), limit=limit,
        )  # fmt: skip
        return self._jobs(found)

    def why(self, job_id: int) -> Why:
        """Why a job is not running, and when it is expected to. Raises NotFound."""
        return Why.from_json(self.session.why(job_id))

    def result(self, job_id: int) -> bytes:
        """What a job left as its result, once it has ended, as it was written; `Job.result` makes a Python value of it.
        Raises NotFound where there is none, WrongState before its end, Forbidden."""
        return self.session.result(job_id).body

    def user(self) -> str:
        """Whom the daemon takes this program for."""
        return str(self.session.whoami()["user"])

    def logs(self, job_id: int, *, attempt: int | None = None, last_bytes: int | None = None) -> str:
        """What a job has written so far, of its newest attempt unless another is named; `last_bytes`: only the end, in
        bytes. What is not UTF-8 is shown as U+FFFD; `log` gives the bytes. Raises NotFound, Forbidden."""
        parts: list[bytes] = []
        offset = 0 if last_bytes is None else -last_bytes
        while last_bytes != 0:
            chunk = self.log(job_id, offset=offset, attempt=attempt)
            parts.append(chunk.data)
            if not chunk.data or chunk.next_offset >= chunk.size:
                break
            # Goes on with the attempt it began with, also when a new one starts meanwhile.
            offset, attempt = chunk.next_offset, chunk.attempt or None
        return b"".join(parts).decode(errors="replace")

    def log(self, job_id: int, *, offset: int = 0, limit: int = 1 << 20, attempt: int | None = None) -> LogChunk:
        """A piece of a job's output: at most `limit` bytes from byte `offset` on, a negative one counting from the
        end. `attempt` None: the newest. Raises NotFound, Forbidden."""
        return self.session.log(job_id, offset=offset, limit=limit, attempt=attempt)

    def follow(self, job_id: int) -> Iterator[bytes]:
        """The output of all attempts as it comes, until the job is final. Raises DaemonUnreachable when the job has
        not ended and no daemon runs that could end it."""
        return self.session.follow(job_id)

    def wait(self, *jobs: int | Job, timeout_s: float | None = None) -> list[Job]:
        """The jobs in the order given, once all are final. Raises TimeoutError after `timeout_s` seconds (None: waits
        for ever), NotFound, and DaemonUnreachable when no daemon runs that could end them."""
        ids = [job.id if isinstance(job, Job) else job for job in jobs]
        return self._jobs(self.session.wait(*ids, timeout_s=timeout_s))

    # -- changing ---------------------------------------------------------------------------------------------

    def cancel(
        self, job_id: int, *, force: bool = False, grace_s: float | None = None, reason: str | None = None
    ) -> Job:
        """Ends a job: a waiting one at once, a running one with SIGTERM and, after `grace_s` seconds, SIGKILL;
        `force` or a second call: SIGKILL now. Returns it as it is then, which may still be `stopping`. Raises NotFound,
        Forbidden, WrongState."""
        return self._job(self.session.cancel(job_id, force=force, grace_s=grace_s, reason=reason))

    def hold(self, job_id: int) -> Job:
        """Takes a waiting job out of line until it is released. Raises NotFound, Forbidden, WrongState."""
        return self._job(self.session.hold(job_id))

    def release(self, job_id: int) -> Job:
        """Puts a held job back at its own place. Raises NotFound, Forbidden, WrongState."""
        return self._job(self.session.release(job_id))

    def retry(self, job_id: int) -> Job:
        """Queues a failed or cancelled job again: same id, retries reset, attempt numbers go on. Raises NotFound,
        Forbidden, WrongState."""
        return self._job(self.session.retry(job_id))

    def retry_dead_letter(self, job_id: int) -> Job:
        """As `retry`, only for a job in the dead-letter queue. Raises NotFound for any other, Forbidden."""
        return self._job(self.session.dlq_retry(job_id))

    def top(self, job_id: int) -> Job:
        """Moves a waiting job to the front of its priority. Raises NotFound, Forbidden, WrongState."""
        return self._job(self.session.top(job_id))

    def update(self, job_id: int, **changes: Unpack[Update]) -> Job:
        """Changes a waiting job: `update(7, priority="high", time_limit_s=3600)`, seconds and MiB as in `submit`. A new
        priority or time limit gives it the place that it would have had with it from the start. Of a running job
        `time_limit_s` (or `time_add_s`: so much more, or less), `kill_grace_s`, `name`, `group`, and `priority` for its
        next attempt. Raises UsageError, Constraint, NotFound, Forbidden, WrongState, and Refused for a longer limit
        that would make others wait."""
        return self._job(self.session.update(job_id, **changes))

    def _job(self, data: Mapping[str, Any]) -> Job:
        return Job.from_json(data, self)

    def _jobs(self, data: Iterable[Mapping[str, Any]]) -> list[Job]:
        return [Job.from_json(job, self) for job in data]


def _commas(values: str | Iterable[object] | None) -> str | None:
    return values if values is None or isinstance(values, str) else ",".join(map(str, values))
