"""Submissions on a worker thread: read, stored, answered as soon as they are durable, and made known behind that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from pydantic_core import to_json
from starlette.responses import Response

from gpuq.domain.caller import Caller
from gpuq.domain.job import job_json
from gpuq.domain.spec import JobSpec
from gpuq.engine.context import Context
from gpuq.engine.intake import submit
from gpuq.engine.intake.request import Submitted
from gpuq.engine.intake.to_agent import Agent, chance_of, tell
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.errors import GpuqError
from gpuq.ports.records import JobFilter
from gpuq.server.http.error_handlers import malformed, response_of
from gpuq.server.routes.submission_body import BadSubmission, Bodies, of_item
from gpuq.server.routes.submission_response import SubmissionEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """`described`: the answer says when the jobs will start. `leave_if_gone` raises where nobody waits for an answer;
    then nothing is stored. `answer` is called once, with the answer or with what went wrong."""

    body: bytes
    caller: Caller
    key: str | None
    described: bool
    leave_if_gone: Callable[[], None]
    answer: Callable[[Response | Exception], None]

    def fingerprint(self) -> str | None:
        """Of what is asked for, where the request has a key."""
        return None if self.key is None else blake2b(self.body, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Parsed:
    """`many`: a list was sent, and its items are counted in what is said of them."""

    request: Request
    specs: list[JobSpec]
    many: bool

    @property
    def as_list(self) -> bool:
        """One array answers a list, as several jobs do."""
        return self.many or self.specs[0].array is not None

    def refusal(self, error: GpuqError) -> Response | GpuqError:
        """Names the item that is to blame."""
        if not self.many or error.index is None:
            return error
        return response_of(of_item(error, error.index), index=error.index)


class Clerk:
    """Any thread. `agent`: the one of this process, if it has one."""

    def __init__(self, ctx: Context, queries: JobQueries, agent: Agent | None) -> None:
        self._ctx = ctx
        self._queries = queries
        self._agent = agent
        self._bodies = Bodies(ctx.settings.max_batch)

    def serve(self, request: Request) -> None:
        """From the body to the answer, and what comes behind it. Raises nothing."""
        answered = False

        def answer(given: Response | Exception) -> None:
            nonlocal answered
            answered = True
            request.answer(given)

        try:
            parsed = self._parsed(request, answer)
            if parsed is not None:
                self._serve_alone(parsed, answer)
        except Exception as error:
            if answered:
                log.exception("jobs are stored, and the agent was not told; it looks by itself")
            else:
                request.answer(error)

    def _parsed(self, request: Request, answer: Callable[[Response], None]) -> Parsed | None:
        """None for one that is answered already, because it makes no sense."""
        try:
            specs, many = self._bodies.parse(request.body)
        except BadSubmission as bad:
            answer(response_of(bad.error, index=bad.index))
            return None
        except ValueError as error:
            answer(malformed(str(error)))
            return None
        request.leave_if_gone()
        return Parsed(request, specs, many)

    def _serve_alone(self, parsed: Parsed, answer: Callable[[Response | Exception], None]) -> None:
        """Answered as soon as the jobs are durable. Behind it the agent hears of them, or the hot queue; before it the
        hot queue, where they are described by it."""
        ctx, request = self._ctx, parsed.request
        agent = None if request.described else self._agent
        with chance_of(ctx, agent, parsed.specs, request.caller) as chance:
            try:
                done = submit.store(
                    ctx,
                    parsed.specs,
                    request.caller,
                    request_key=request.key,
                    fingerprint=request.fingerprint(),
                    chance=chance,
                    before_commit=request.leave_if_gone,
                )
            except GpuqError as error:
                return answer(parsed.refusal(error))
            if request.described:
                tell(ctx, done)
                return answer(_response(parsed, self._described(done.ids)))
            answer(_response(parsed, self._answers(done)))
        tell(ctx, done, agent)
        return None

    def _answers(self, done: Submitted) -> list[bytes]:
        known = [job_id for job_id in done.ids if job_id not in done.stored]
        found: dict[int, bytes] = {}
        if known:
            with self._ctx.records.read() as reader:
                jobs = reader.jobs(JobFilter(ids=tuple(dict.fromkeys(known))))
            found = {job.id: to_json(job_json(job)) for job in jobs}
        array_id: int | None = None
        encoder = SubmissionEncoder()
        for job_id, new in done.stored.items():
            if new.array_first:
                array_id = job_id
            found[job_id] = encoder.fill_in(job_id, new, array_id if new.array_index is not None else None)
        return [found[job_id] for job_id in done.ids]

    def _described(self, ids: Sequence[int]) -> list[bytes]:
        with self._ctx.records.read() as reader:
            jobs = {job.id: job for job in reader.jobs(JobFilter(ids=tuple(dict.fromkeys(ids))))}
        described = self._queries.describe([jobs[job_id] for job_id in ids])
        return [to_json(job_json(job, seen)) for job, seen in described]


def _response(parsed: Parsed, jobs: list[bytes]) -> Response:
    payload = b"[%b]" % b",".join(jobs) if parsed.as_list else jobs[0]
    return Response(payload, 201, media_type="application/json")
