"""The daemon's HTTP API as Python calls that answer its JSON. Light to import: the command line is built on it, and so
is the client of `gpuq.client.client`."""

from __future__ import annotations

import os

from gpuq.client.rule_calls import RuleCalls
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from gpuq.client.transport import Reply


class LogChunk:
    """`next_offset` and `size` in bytes; `attempt` 0 when there was none yet; `final`: nothing will be added."""

    __slots__ = ("attempt", "data", "final", "next_offset", "size")

    def __init__(self, reply: Reply) -> None:
        self.data = reply.body
        self.next_offset = int(reply.headers.get("x-next-offset", "0"))
        self.size = int(reply.headers.get("x-size", "0"))
        self.attempt = int(reply.headers.get("x-attempt", "0") or 0)
        self.final = reply.headers.get("x-final") == "1"


class Calls(RuleCalls):
    """The queue as JSON. `Calls().submit(["python", "train.py"], gpus=2)` returns the job as a dict.

    Finds the daemon as the command line does: that of the own home, else the machine's; `server` and `token` override
    that. When neither runs (and none was named), calls work straight on the database of this home and nothing starts
    until `gpuq up`; `on_direct` is called once then, and `direct=False` raises DaemonUnreachable instead.

    Threads may share a client: each gets a connection of its own. A connection lost in mid-call is made again and
    the call repeated where that does no harm: reading always, submitting because a request carries a key that the
    daemon recognises. Errors are those of `gpuq.errors`, as the daemon raised them.
    """

    # -- jobs ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        command: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        request_key: str | None = None,
        **fields: Any,
    ) -> Any:
        """The queued job, or a list of jobs when `array` is among the fields. Durable on return.

        `fields` are those of a submission: gpus, gpu_mem_mb, priority, time_limit_s, name, after … `env` None: this
        process's environment, secrets apart (over TCP nothing of it). `request_key` makes a repeated call return the
        same job.
        """
        taken = self.taken_over() if env is None else {"env": dict(env)}
        spec = {"command": list(command), "cwd": cwd or os.getcwd(), **taken, **fields}
        return self.post_jobs(spec, request_key=request_key)

    def taken_over(self) -> dict[str, Any]:
        """Fields of a submission that a job has from this process: its environment and what else it was started
        with. Nothing for a daemon that may be on another machine."""
        if self.is_remote:
            return {}
        from gpuq.client.environment import Rules, collect, surroundings

        rules = Rules(site_keep=self.address.env_keep, site_secret=self.address.env_secret)
        env, secrets, _ = collect(rules)
        return {"env": env, **({"secrets": secrets} if secrets else {}), **surroundings()}

    def submit_many(self, specs: Sequence[Mapping[str, Any]], *, request_key: str | None = None) -> list[Any]:
        """All or none, in one transaction; each spec as it stands, so with no environment unless it has one."""
        jobs: list[Any] = self.post_jobs([dict(spec) for spec in specs], request_key=request_key)
        return jobs

    def post_jobs(self, body: object, *, request_key: str | None = None, outlook: bool = False) -> Any:
        """`body` is one submission or a list of them; `outlook`: with place in line and estimated start."""
        reply = self.send_jobs(body, request_key=request_key, outlook=outlook)
        return self.decode(reply)

    def send_jobs(
        self,
        body: object,
        *,
        request_key: str | None = None,
        outlook: bool = False,
        accept: Sequence[int] = (),
    ) -> Reply:
        """Posts a submission. It carries a request key, made here unless given, so that a repetition queues nothing
        twice."""
        headers = {"Idempotency-Key": request_key or os.urandom(16).hex()}
        query = {"outlook": "true"} if outlook else None
        return self._post("/jobs", body, query=query, headers=headers, accept=accept)

    def _post(self, path: str, body: Any, *, accept: Sequence[int] = (), **options: Any) -> Reply:
        """A submission; once more with less for a daemon of an earlier release, which knows fewer fields."""
        reply = self.send("POST", path, body=body, repeat=True, accept=(*accept, 422), **options)
        if reply.status == 422:
            from gpuq.client.earlier import without_new_fields
            from gpuq.client.errors import from_reply

            error = from_reply(reply.status, reply.body)
            known = without_new_fields(body, error.message)
            if known is not None:
                body, self.left_out = known
                return self.send("POST", path, body=body, repeat=True, accept=accept, **options)
            if 422 not in accept:
                raise error
        return reply

    def submit_again(
        self, job_id: int, changes: Mapping[str, Any], *, request_key: str | None = None
    ) -> list[dict[str, Any]]:
        """The own job `job_id` once more, with `changes` (fields of a submission; `env` is added to its own): the new
        job, or the elements of its array. Raises NotFound, Forbidden and what `submit` does."""
        headers = {"Idempotency-Key": request_key or os.urandom(16).hex()}
        reply = self._post(f"/jobs/{job_id}/again", dict(changes), headers=headers)
        jobs: list[dict[str, Any]] = self.decode(reply)
        return jobs

    def check(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the job could be queued, and its estimated start: {"ok", "estimated_start", "reason"}."""
        answer: dict[str, Any] = self.decode(self._post("/jobs/check", dict(spec)))
        return answer

    def check_place(self, command: Sequence[str], cwd: str, path: str | None = None) -> None:
        """Asks a daemon of another machine whether directory and program are there. Raises UsageError."""
        body = {"cwd": cwd, "program": command[0], "path": path}
        # An earlier release has no such route.
        reply = self.send("POST", "/jobs/place", body=body, repeat=True, accept=(404, 405, 422))
        complaint = self.decode(reply).get("complaint") if reply.status == 200 else None
        if complaint is not None:
            raise UsageError(
                str(complaint), hint="give -C a directory of that machine, or --no-check if both will be there in time"
            )

    def job(self, job_id: int) -> dict[str, Any]:
        """One job with its attempts and events. Raises NotFound."""
        return self._dict("GET", f"/jobs/{job_id}")

    def jobs(self, **filters: object) -> list[Any]:
        """By id. Filters: state, user, group, name, limit, after_id, ids, array_id; None is no filter."""
        return self._list("GET", "/jobs", query=filters)

    def names(self, **filters: object) -> list[Any]:
        """[id, array id, index in it] of each job, by id, which costs a small part of `jobs`. Filters: those of `jobs`,
        but `array_ids` (commas between) for `array_id`, and `until_id`: no larger id."""
        reply = self.send("GET", "/jobs/ids", query=filters, accept=(404, 422))
        if reply.status == 200:
            found: list[Any] = self.decode(reply)
            return found
        # A daemon of an earlier release takes the last word for an id.
        arrays, until = filters.pop("array_ids", None), filters.pop("until_id", None)
        asked = [{"array_id": one} for one in str(arrays).split(",")] if arrays is not None else [{}]
        jobs = [job for more in asked for job in self.jobs(**filters, **more)]
        return [
            [job["id"], job["array_id"], job["array_index"]]
            for job in jobs
            if until is None or job["id"] <= int(str(until))
        ]

    def act(self, verb: str, job_ids: Sequence[int], **words: object) -> list[Any] | None:
        """`cancel`, `hold`, `release`, `requeue`, `retry`, `top` or `update` on at most 10,000 jobs in one request; of
        each {"id", "state"} or {"id", "error"}. `words` as in the API. None from a daemon of an earlier release that
        has no such request."""
        given = {name: value for name, value in words.items() if value is not None}
        reply = self.send("POST", f"/jobs/{verb}", body={"ids": list(job_ids), **given}, accept=(405,))
        return None if reply.status == 405 else list(self.decode(reply))

    def queue(
        self, *, limit: int | None = None, offset: int = 0, arrays: str | None = None, **filters: object
    ) -> dict[str, Any]:
        """Running jobs, then waiting ones in order: {"running", "queued", "waiting", "total", "jobs"}. Filters: user,
        state, group, name. `arrays="one"`: of the waiting elements of an array only the first, and {"arrays": {id:
        counts}}."""
        query = {"limit": limit, "offset": offset or None, "arrays": arrays, **filters}
        return self._dict("GET", "/queue", query=query)

    def history(self, **filters: object) -> list[Any]:
        """Finished jobs, newest first. Filters as for `jobs`, and since, until (ISO 8601)."""
        return self._list("GET", "/history", query=filters)

    def cancel(
        self, job_id: int, *, force: bool = False, grace_s: float | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """A running job: SIGTERM, `grace_s` seconds, SIGKILL; `force` or a second cancel: SIGKILL now."""
        query = {"force": "true" if force else None, "grace_s": grace_s, "reason": reason}
        return self._dict("DELETE", f"/jobs/{job_id}", query=query)

    def hold(self, job_id: int) -> dict[str, Any]:
        return self._dict("POST", f"/jobs/{job_id}/hold")

    def release(self, job_id: int) -> dict[str, Any]:
        return self._dict("POST", f"/jobs/{job_id}/release")

    def retry(self, job_id: int) -> dict[str, Any]:
        return self._dict("POST", f"/jobs/{job_id}/retry")

    def requeue(self, job_id: int) -> dict[str, Any]:
        """A running job is stopped, with its grace, and goes back in line."""
        return self._dict("POST", f"/jobs/{job_id}/requeue")

    def top(self, job_id: int) -> dict[str, Any]:
        return self._dict("POST", f"/jobs/{job_id}/top")

    def update(self, job_id: int, **changes: object) -> dict[str, Any]:
        """Fields of a submission with their new values."""
        return self._dict("PATCH", f"/jobs/{job_id}", body=changes, repeat=True)

    def script(self, job_id: int) -> str:
        """The batch script that it was submitted with. Raises NotFound where there is none, Forbidden."""
        return self.send("GET", f"/jobs/{job_id}/script").body.decode()

    def result(self, job_id: int) -> Reply:
        """What it left as its result: bytes, and their media type among the headers. Raises NotFound where there is
        none, WrongState before its end, Forbidden."""
        return self.send("GET", f"/jobs/{job_id}/result")

    def why(self, job_id: int) -> dict[str, Any]:
        return self._dict("GET", f"/jobs/{job_id}/why")

    def log(self, job_id: int, *, offset: int = 0, limit: int = 1 << 20, attempt: int | None = None) -> LogChunk:
        """At most `limit` bytes from `offset`; a negative offset counts from the end. `attempt` None: the newest."""
        query = {"offset": offset, "limit": limit, "attempt": attempt}
        return LogChunk(self.send("GET", f"/jobs/{job_id}/log", query=query))

    def follow(self, job_id: int) -> Iterator[bytes]:
        """The output of all attempts as it comes, until the job is final. Needs a daemon."""
        from gpuq.client.watch import follow

        return follow(self, job_id)

    def wait(self, *job_ids: int, timeout_s: float | None = None) -> list[Any]:
        """The jobs, all final. Raises TimeoutError, and DaemonUnreachable when none runs that could end them."""
        from gpuq.client.watch import wait

        return wait(self, list(job_ids), timeout_s)

    # -- the queue, the machine ---------------------------------------------------------------------------------

    def pause(self, reason: str | None = None) -> dict[str, Any]:
        return self._dict("POST", "/queue/pause", body={"reason": reason}, repeat=True)

    def resume(self) -> dict[str, Any]:
        return self._dict("POST", "/queue/resume", repeat=True)

    def gpus(self) -> list[Any]:
        return self._list("GET", "/gpus")

    def drain(self, index: int, reason: str | None = None) -> Any:
        return self.call("POST", f"/gpus/{index}/drain", body={"reason": reason}, repeat=True)

    def undrain(self, index: int) -> Any:
        return self.call("POST", f"/gpus/{index}/undrain", repeat=True)

    def stats(self) -> dict[str, Any]:
        return self._dict("GET", "/stats")

    def dlq(self) -> list[Any]:
        return self._list("GET", "/dlq")

    def dlq_retry(self, job_id: int) -> dict[str, Any]:
        return self._dict("POST", f"/dlq/{job_id}/retry")

    def dlq_remove(self, job_id: int) -> None:
        self.call("DELETE", f"/dlq/{job_id}")

    def clean(self, **chosen: object) -> dict[str, Any]:
        """One step of removing what finished jobs left; `next_after_id` of the answer is the `after_id` of the next
        step, null at the end. See `POST /clean`."""
        return self._dict("POST", "/clean", body=chosen, repeat=True)

    def whoami(self) -> dict[str, Any]:
        return self._dict("GET", "/whoami")

    def report(self, kind: str, **options: object) -> dict[str, Any]:
        """{"columns": [...], "rows": [[...]]}"""
        return self._dict("GET", f"/report/{kind}", query=options)

    def sql(self, query: str) -> dict[str, Any]:
        """{"columns": [...], "rows": [[...]]}; reading only."""
        return self._dict("POST", "/sql", body={"query": query}, repeat=True)

    def health(self) -> dict[str, Any]:
        """What /readyz says, also when it says no."""
        answer: dict[str, Any] = self.decode(self.send("GET", "/readyz", accept=(503,)))
        return answer
