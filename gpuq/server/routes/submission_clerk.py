"""Submissions on a worker thread: read, stored, answered as soon as they are durable, and made known behind that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from pydantic_core import to_json
from starlette.responses import Response

from gpuq.domain.caller import Caller
from gpuq.domain.job import job_json
from gpuq.domain.quantities import duration_text
from gpuq.domain.spec import JobSpec
from gpuq.engine.context import Context
from gpuq.engine.intake import submit
from gpuq.engine.intake.request import Asked, Submitted
from gpuq.engine.intake.to_agent import Agent, chance_of, tell, tell_all
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.errors import GpuqError, QueueFull
from gpuq.ports.records import JobFilter
from gpuq.server.http.error_handlers import malformed, response_of
from gpuq.server.routes.submission_body import BadSubmission, Bodies, of_item
from gpuq.server.routes.submission_response import SubmissionEncoder

log = logging.getLogger(__name__)

# Jobs of a submission that is stored together with others.
FEW = 100


@dataclass(slots=True)
class Request:
    """`described`: the answer says when the jobs will start. `leave_if_gone` raises where nobody waits for an answer;
    then nothing is stored. `give` gets the answer, or what went wrong."""

    body: bytes
    caller: Caller
    key: str | None
    described: bool
    leave_if_gone: Callable[[], None]
    give: Callable[[Response | Exception], None]
    answered: bool = False

    def answer(self, given: Response | Exception) -> None:
        """The first is the answer; an error behind it is logged."""
        if not self.answered:
            self.answered = True
            self.give(given)
        elif isinstance(given, Exception):
            log.error("jobs are stored, and the agent was not told; it looks by itself", exc_info=given)


@dataclass(frozen=True, slots=True)
class Parsed:
    """`many`: a list was sent, and its items are counted in what is said of them."""

    request: Request
    specs: list[JobSpec]
    many: bool

    @property
    def small(self) -> bool:
        """Whether it may be stored with others: it does not keep them waiting, and nobody waits for its description."""
        few = len(self.specs) <= FEW and not any(spec.makes_many for spec in self.specs)
        return few and not self.request.described

    @property
    def as_list(self) -> bool:
        """One array answers a list, as several jobs do."""
        return self.many or self.specs[0].makes_many

    def asked(self) -> Asked:
        """For the engine."""
        request = self.request
        fingerprint = None if request.key is None else fingerprint_of(request.body, self.specs)
        return Asked(self.specs, request.caller, request.key, fingerprint, request.leave_if_gone)

    def refuse(self, error: Exception) -> None:
        """Names the item that is to blame."""
        if isinstance(error, GpuqError) and self.many and error.index is not None:
            self.request.answer(response_of(of_item(error, error.index), index=error.index))
        else:
            self.request.answer(error)


def fingerprint_of(body: bytes, specs: Sequence[JobSpec]) -> str:
    """Tells two submissions apart. It is stored, so nothing of a secret goes into it: who reads it could try
    passwords."""
    if not any(spec.secrets for spec in specs):
        return blake2b(body, digest_size=16).hexdigest()
    told = blake2b(digest_size=16)
    # Jobs of a batch share one dictionary.
    env: object = None
    for spec in specs:
        if spec.env is not env:
            env = spec.env
            told.update(to_json(env))
        told.update(spec.model_dump_json(exclude={"env", "secrets"}, exclude_defaults=True).encode())
    return told.hexdigest()


class Clerk:
    """Any thread. `agent`: the one of this process, if it has one."""

    def __init__(self, ctx: Context, queries: JobQueries, agent: Agent | None) -> None:
        self._ctx = ctx
        self._queries = queries
        self._agent = agent
        self._bodies = Bodies(ctx.settings.max_batch)
        self._encoder = SubmissionEncoder()

    def serve_all(self, requests: Sequence[Request]) -> None:
        """From the bodies to the answers, and what comes behind them. Small ones are stored together, and so in one
        commit; a single one may start its job. Raises nothing."""
        parsed = [each for request in requests if (each := self._parsed(request)) is not None]
        together = [each for each in parsed if each.small] if len(parsed) > 1 else []
        if len(together) > 1:
            self._serve_together(together)
        else:
            together = []
        for each in parsed:
            if each not in together:
                self._serve_alone(each)

    def spare_memory(self) -> None:
        """After a large submission: gives back what it took and the next ones do not need."""
        self._ctx.records.spare_memory()

    def _parsed(self, request: Request) -> Parsed | None:
        """None for one that is answered already, because it makes no sense."""
        try:
            specs, many = self._bodies.parse(request.body)
            request.leave_if_gone()
        except BadSubmission as bad:
            request.answer(response_of(bad.error, index=bad.index))
        except ValueError as error:
            request.answer(malformed(str(error)))
        except Exception as error:  # noqa: BLE001 - it is the answer
            request.answer(error)
        else:
            return Parsed(request, specs, many)
        return None

    def _serve_alone(self, parsed: Parsed) -> None:
        """Answered as soon as the jobs are durable. Behind it the agent hears of them, or the hot queue; before it the
        hot queue, where they are described by it."""
        ctx, request, asked = self._ctx, parsed.request, parsed.asked()
        agent = None if request.described else self._agent
        try:
            with chance_of(ctx, agent, asked) as chance:
                done = submit.store(ctx, asked, chance)
                if request.described:
                    tell(ctx, done)
                    return request.answer(_response(parsed, self._described(done.ids)))
                request.answer(_response(parsed, self._answers(done)))
            tell(ctx, done, agent)
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._refuse(parsed, error)

    def _serve_together(self, several: Sequence[Parsed]) -> None:
        try:
            stored: list[Submitted] = []
            outcomes = submit.store_together(self._ctx, [parsed.asked() for parsed in several])
            for parsed, outcome in zip(several, outcomes, strict=True):
                if isinstance(outcome, Submitted):
                    stored.append(outcome)
                    parsed.request.answer(_response(parsed, self._answers(outcome)))
                else:
                    self._refuse(parsed, outcome)
            tell_all(self._ctx, stored, self._agent)
        except Exception as error:  # noqa: BLE001 - it is the answer
            for parsed in several:
                parsed.request.answer(error)

    def _refuse(self, parsed: Parsed, error: Exception) -> None:
        """Of a full queue with the time at which there may be room; that is only known here."""
        if isinstance(error, QueueFull):
            error.retry_after_s = self._queries.room_in_s()
            if error.retry_after_s is not None:
                error.hint = f"try again in about {duration_text(error.retry_after_s)}, or cancel some"
        parsed.refuse(error)

    def _answers(self, done: Submitted) -> Iterator[bytes]:
        known = [job_id for job_id in done.ids if job_id not in done.stored]
        found: dict[int, bytes] = {}
        if known:
            with self._ctx.records.read() as reader:
                jobs = reader.jobs(JobFilter(ids=tuple(dict.fromkeys(known))))
            found = {job.id: to_json(job_json(job)) for job in jobs}
        array_id: int | None = None
        for job_id in done.ids:
            new = done.stored.get(job_id)
            if new is None:
                yield found[job_id]
                continue
            if new.array_first:
                array_id = job_id
            yield self._encoder.fill_in(job_id, new, array_id if new.array_index is not None else None)

    def _described(self, ids: Sequence[int]) -> list[bytes]:
        with self._ctx.records.read() as reader:
            jobs = {job.id: job for job in reader.jobs(JobFilter(ids=tuple(dict.fromkeys(ids))))}
        described = self._queries.describe([jobs[job_id] for job_id in ids])
        return [to_json(job_json(job, seen)) for job, seen in described]


def _response(parsed: Parsed, jobs: Iterable[bytes]) -> Response:
    payload = bytearray(b"[" if parsed.as_list else b"")
    # Not all of them beside the whole: of 50,000 jobs that is 50 MB.
    for place, job in enumerate(jobs):
        if place:
            payload += b","
        payload += job
    if parsed.as_list:
        payload += b"]"
    return Response(memoryview(payload), 201, media_type="application/json")
