"""Step one of a job's life: job rows and their events in one transaction, then a hint to the hot queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gpuq.domain import failpoints
from gpuq.domain.array import Array
from gpuq.domain.caller import Caller
from gpuq.domain.eligibility import begin_time, waiting_state
from gpuq.domain.job import Job
from gpuq.domain.limits import LimitBook
from gpuq.domain.priority import Ranking
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.domain.times import iso
from gpuq.engine.access import require_account, require_priority
from gpuq.engine.context import IntakeContext
from gpuq.engine.hot.ranking import ahead
from gpuq.engine.intake.constraints import check_fits, require_honest_limit, require_room_in_limits
from gpuq.engine.intake.elements import array_of, name_of, parameters_of
from gpuq.engine.intake.full_queue import check_line
from gpuq.engine.intake.limits import check_room, rules_for, within_longest
from gpuq.engine.intake.newborn import UNBORN, waiting_of
from gpuq.engine.intake.request import Asked, Submitted
from gpuq.engine.intake.request_size import check_size
from gpuq.engine.intake.sealing import Sealing
from gpuq.engine.intake.to_agent import Chance, tell
from gpuq.errors import DatabaseUnavailable, GpuqError, NotFound, Refused, UsageError
from gpuq.ports.records import AnsweredRequest, JobFilter, NewJob, Reader, Waiting, Writer

log = logging.getLogger(__name__)

# Final states after which nobody's success is to be waited for.
_IN_VAIN = frozenset({JobState.FAILED, JobState.CANCELLED})


def submit(
    ctx: IntakeContext, specs: Sequence[JobSpec], caller: Caller, *, request_key: str | None = None
) -> list[Job]:
    """All of `specs` or none, durable on return. The jobs in the order given, arrays unfolded.

    `request_key` names the request: the same key from the same user again returns the same jobs. A spec's own
    `key` that a live or successful job already carries returns that job. Raises UsageError, TooLarge, Constraint,
    NotFound (a dependency), SecretsUnavailable, Refused (a limit), Forbidden (the priority, no account),
    DatabaseUnavailable.
    """
    done = store(ctx, Asked(specs, caller, request_key))
    tell(ctx, done)
    with ctx.records.read() as tx:
        found = {job.id: job for job in tx.jobs(JobFilter(ids=tuple(dict.fromkeys(done.ids))))}
    return [found[job_id] for job_id in done.ids]


def store(ctx: IntakeContext, asked: Asked, chance: Chance | None = None) -> Submitted:
    """The durable part of `submit`, without reading the rows back; the caller calls `tell` next. `chance`: the one job
    is claimed with its row, if it still may be."""
    admit(ctx, asked)
    with _transaction(ctx, asked.before_commit) as tx:
        done = _write(ctx, tx, asked, chance)
    done.claimed = chance is not None and chance.committed()
    return done


def store_together(ctx: IntakeContext, several: Sequence[Asked]) -> list[Submitted | Exception]:
    """As `store`, of several requests in one transaction, in this order: each sees those before it, as if it came after
    them, and one that is refused leaves nothing of itself and does not touch the others. Its refusal is in its place.
    Raises DatabaseUnavailable; then nothing of any is stored."""
    outcomes: list[Submitted | Exception] = []
    with _transaction(ctx) as tx:
        for asked in several:
            try:
                admit(ctx, asked)
                with tx.part():
                    done = _write(ctx, tx, asked)
                    asked.before_commit()
            except DatabaseUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - of this one alone
                outcomes.append(error)
            else:
                outcomes.append(done)
    return outcomes


@contextmanager
def _transaction(ctx: IntakeContext, before_commit: Callable[[], None] = lambda: None) -> Iterator[Writer]:
    with ctx.records.write() as tx:
        yield tx
        failpoints.point("submit.before_commit")
        before_commit()
    failpoints.point("submit.committed")


def _write(ctx: IntakeContext, tx: Writer, asked: Asked, chance: Chance | None = None) -> Submitted:
    """In a transaction of the caller's, of what has been admitted. Raises as `submit` does; then the caller undoes what
    was written."""
    caller, key, now = asked.caller, asked.request_key, ctx.clock.now()
    if key is not None and (before := tx.request(caller.user, key)) is not None:
        _check_same(before, asked.fingerprint)
        return Submitted(before.job_ids, {})
    ids, new, book = _made(ctx, tx, asked.specs, caller, now)
    check_line(ctx, tx, new)
    check_room(ctx, tx, caller.user, new, book)
    fresh = tx.add_jobs(new, actor=caller.user, request_key=key, fingerprint=asked.fingerprint) if new else []
    if chance is not None and fresh:
        chance.claim(tx, fresh[0], new[0])
    rest = iter(fresh)
    done = [known if known is not None else next(rest) for known in ids]
    return Submitted(done, dict(zip(fresh, new, strict=True)))


def admit(ctx: IntakeContext, asked: Asked) -> None:
    """What is refused whatever stands in the database: Forbidden without an account, TooLarge, Constraint."""
    require_account(ctx.accounts, asked.caller)
    check_size(ctx, asked.specs)
    check_fits(ctx, asked.specs)


def _made(
    ctx: IntakeContext, tx: Reader, specs: Sequence[JobSpec], caller: Caller, now: float
) -> tuple[list[int | None], list[NewJob], LimitBook]:
    """In the order asked for, the ids of jobs that are there already, None for each new one; and the new ones, with
    the limits that they have to keep."""
    rule, book = rules_for(ctx, tx, caller.user, specs)
    waiting = ahead(tx, rule, caller.user)
    ids: list[int | None] = []
    new: list[NewJob] = []
    keys_here: set[str] = set()
    states: dict[int, JobState] = {}
    sealing = Sealing(ctx)
    for index, spec in enumerate(specs):
        try:
            if spec.key is not None:
                existing = _with_key(tx, spec, caller, keys_here)
                if existing is not None:
                    ids.append(existing)
                    continue
            spec = _within_limits(ctx, book, caller.user, spec)
            rows = sealing.seal(_rows(ctx, tx, spec, caller, now, rule, waiting + len(new), states))
        except GpuqError as error:
            error.index = index
            raise
        new.extend(rows)
        ids.extend([None] * len(rows))
    return ids, new, book


def _with_key(tx: Reader, spec: JobSpec, caller: Caller, keys_here: set[str]) -> int | None:
    """The job that carries the spec's key already; else the key is noted in `keys_here`, the submission's own."""
    assert spec.key is not None
    existing = tx.job_with_key(caller.user, spec.key)
    if existing is not None:
        return existing
    if spec.key in keys_here:
        raise UsageError(f"key {spec.key!r} is used twice in one submission")
    if spec.makes_many:
        raise UsageError("key: an array cannot carry one", hint="give each element a submission of its own")
    keys_here.add(spec.key)
    return None


def _check_same(before: AnsweredRequest, fingerprint: str | None) -> None:
    if fingerprint is None or before.fingerprint in {None, fingerprint}:
        return
    first = f"job {before.job_ids[0]}" if before.job_ids else "other jobs"
    raise Refused(
        f"this request key was used for another submission ({first})",
        hint="send a new Idempotency-Key with a new submission, and the same one only to repeat a request as it was",
    )


def check(ctx: IntakeContext, spec: JobSpec, caller: Caller, estimate: Callable[[Waiting], float | None]) -> str | None:
    """Everything that `submit` checks, and when the job would start (ISO 8601, None when nobody can say); stores
    nothing. `estimate`: when a job that is not stored would start, epoch seconds. Raises as `submit` does."""
    now = ctx.clock.now()
    admit(ctx, Asked([spec], caller))
    with ctx.records.read() as tx:
        rule, book = rules_for(ctx, tx, caller.user, [spec])
        spec = _within_limits(ctx, book, caller.user, spec)
        rows = _rows(ctx, tx, spec, caller, now, rule, ahead(tx, rule, caller.user), {})
        check_line(ctx, tx, rows)
        check_room(ctx, tx, caller.user, rows, book)
    first = rows[0]
    if first.state is not JobState.QUEUED:
        return iso(first.eligible_at)
    return iso(estimate(waiting_of(UNBORN, first, None)))


def _within_limits(ctx: IntakeContext, book: LimitBook, user: str, spec: JobSpec) -> JobSpec:
    require_room_in_limits(ctx, book, user, spec)
    return within_longest(book, user, spec)


def _rows(
    ctx: IntakeContext,
    tx: Reader,
    spec: JobSpec,
    caller: Caller,
    now: float,
    rule: Ranking,
    waiting: int,
    states: dict[int, JobState],
) -> list[NewJob]:
    """`waiting`: jobs of the caller that stand before these. `states`: of jobs that others of the request wait for."""
    require_priority(ctx.settings.user_priority, caller, spec.priority)
    require_honest_limit(ctx, caller, spec)
    begin = begin_time(spec.begin)
    state = JobState.HELD if spec.hold else waiting_state(_depends(tx, spec, states), begin, now)
    cwd = spec.cwd if spec.cwd is not None else _home_of(ctx, caller)
    if not cwd.startswith("/"):
        raise UsageError(f"cwd: {cwd!r} is not an absolute path")
    array = array_of(spec)
    one = NewJob(
        spec,
        caller.user,
        caller.uid,
        caller.gid,
        spec.name or spec.command[0].rpartition("/")[2] or spec.command[0],
        cwd,
        state,
        rule.score(spec.priority, now, spec.time_limit_s, waiting),
        spec.max_retries if spec.max_retries is not None else ctx.settings.default_max_retries,
        now,
        begin if state is JobState.DELAYED else None,
        "user" if state is JobState.HELD else None,
    )
    return [one] if array is None else _elements(one, array, rule.spacing_s)


def _elements(one: NewJob, array: Array, spacing_s: float) -> list[NewJob]:
    """A row for each index, each `spacing_s` seconds later in line than the one before."""
    # All values of a sweep are kept once, with the first; every row has its own.
    rest = one.spec if one.spec.sweep is None else one.spec.model_copy(update={"sweep": None})
    return [
        NewJob(
            spec=one.spec if place == 0 else rest,
            user=one.user,
            uid=one.uid,
            gid=one.gid,
            name=name_of(one.spec, one.name, index, parameters),
            cwd=one.cwd,
            state=one.state,
            score=one.score + spacing_s * place,
            max_retries=one.max_retries,
            submitted_at=one.submitted_at,
            eligible_at=one.eligible_at,
            held_by=one.held_by,
            array_first=place == 0,
            array_index=index,
            array_limit=array.limit,
            parameters=parameters,
        )
        for place, (index, parameters) in enumerate(zip(array.indices, parameters_of(one.spec), strict=False))
    ]


def _depends(tx: Reader, spec: JobSpec, states: dict[int, JobState]) -> bool:
    """Whether some dependency is still open; raises NotFound for one that does not exist, and Refused for one that will
    not succeed any more, unless the job is to wait all the same. `states` is filled in."""
    wanted = (*spec.after, *spec.after_any)
    if not wanted:
        return False
    unknown = tuple(job_id for job_id in wanted if job_id not in states)
    if unknown:
        states.update((job.id, job.state) for job in tx.jobs(JobFilter(ids=unknown)))
    for job_id in wanted:
        if job_id not in states:
            raise NotFound(f"cannot wait for job {job_id}: no such job", hint="`gpuq status -a` lists the jobs")
        if job_id in spec.after and states[job_id] in _IN_VAIN and not spec.keep_waiting:
            how = "failed" if states[job_id] is JobState.FAILED else "was cancelled"
            raise Refused(
                f"cannot run after job {job_id}, which {how}",
                hint=f"`gpuq retry {job_id}` first; or give --keep-waiting (keep_waiting) to wait until somebody does",
            )
    return any(states[job_id] is not JobState.COMPLETED for job_id in spec.after) or any(
        states[job_id] not in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED} for job_id in spec.after_any
    )


def _home_of(ctx: IntakeContext, caller: Caller) -> str:
    account = None if caller.uid is None else ctx.accounts.of(caller.uid)
    return "/" if account is None else account.home
