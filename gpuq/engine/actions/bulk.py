"""How a verb is done to one job, or to many: what is needed of all is read at once, each is judged by itself, all is
written in one go, guarded; and one word to the hot queue behind each commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.priority import Priority, Ranking
from gpuq.domain.states import JobState
from gpuq.engine.attempt.limit_order import LimitOrder, try_limits
from gpuq.engine.attempt.stop_request import try_stop
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.queue_hints import publish_jobs, unpublish_jobs
from gpuq.errors import GpuqError, NotFound, Unavailable
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import Change, Dependency, JobFilter, Move, Writer

# Jobs of one transaction: everybody else waits to write while it lasts, for about a quarter of a second.
PER_TRANSACTION = 2_500
# Of verbs that take jobs out of line. In two steps those of the second would be started while the first lasts.
ALL_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop that the supervisor of an attempt is to hear of; `grace_s` seconds between SIGTERM and SIGKILL, `signal`
    before them."""

    job_id: int
    run_dir: str
    grace_s: float
    reason: str = "cancel"
    signal: str | None = None


@dataclass(slots=True)
class ActionTransaction:
    """One transaction of a verb: what it works with, what it is to write, and which hints and notifications follow
    its commit."""

    ctx: ActionContext
    tx: Writer
    caller: Caller
    now: float
    # What the verb has decided so far; written when it has looked at every job.
    moves: list[Move] = field(default_factory=list)
    states: dict[int, JobState] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    # (id, gpus) of jobs that are not queued any more.
    gone: list[tuple[int, int]] = field(default_factory=list)
    ready: list[QueueEntry] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    limits: list[LimitOrder] = field(default_factory=list)
    # Who is to look again: `changed` what it remembers of jobs, `delayed` at the earliest begin.
    topics: set[Topic] = field(default_factory=set)
    # (score, id) of the first waiting job of a priority and a user (None: of all), as this step has left it; and of the
    # last one of somebody else before that.
    fronts: dict[tuple[Priority, str | None], tuple[float, int]] = field(default_factory=dict)
    before: dict[tuple[Priority, str | None], tuple[float, int] | None] = field(default_factory=dict)
    # Jobs that this step has brought back, by user and key; and for a user the rule of the line with how many of his
    # jobs wait.
    keys: dict[tuple[str, str], int] = field(default_factory=dict)
    lines: dict[str, tuple[Ranking, int]] = field(default_factory=dict)
    # What a verb has read of its jobs beforehand: what they wait for, the time of their begin.
    waits_for: dict[int, list[Dependency]] = field(default_factory=dict)
    begins: dict[int, float | str | None] = field(default_factory=dict)
    # Those whose secrets are deleted.
    without_secrets: frozenset[int] = frozenset()

    def move(self, change: Move) -> None:
        """Decides a change of state; it is written with the others."""
        self.moves.append(change)
        self.states[change.job_id] = change.to

    def write(self) -> None:
        """Raises WrongState or Refused; then nothing may be committed."""
        self.tx.move_many(self.moves)
        self.tx.change_many(self.changes)

    def tell(self) -> None:
        """Brings supervisors, the hot queue and the listeners up to date; called after the commit, never before."""
        unpublish_jobs(self.ctx, self.gone)
        for stop in self.stops:
            # After the commit: the records' request must never say more than SQL does.
            try_stop(self.ctx, stop.job_id, stop.run_dir, reason=stop.reason, grace_s=stop.grace_s, signal=stop.signal)
        for order in self.limits:
            try_limits(self.ctx, order)
        for topic in sorted(self.topics):
            # Before the members show up: what the agent remembers of them is out of date.
            self.ctx.notifier.publish(topic)
        publish_jobs(self.ctx, self.ready)
        self.ctx.notifier.publish(Topic.EVENTS)


@dataclass(frozen=True, slots=True)
class BulkAction:
    """`act` says what is to be written for one job, or refuses, and returns the job's state after it. `prepare` reads
    what it needs of all jobs beforehand; `written` goes on in the same transaction when all is written. `committed` is
    called after the commit, before its notifications. `at_once`: all jobs of a request in one transaction."""

    act: Callable[[ActionTransaction, Job], JobState]
    committed: Callable[[], None] | None = None
    prepare: Callable[[ActionTransaction, Sequence[Job]], None] | None = None
    written: Callable[[ActionTransaction], None] | None = None
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What became of one of many: its state now, or why nothing was done."""

    job_id: int
    state: JobState | None = None
    error: GpuqError | None = None


def run_one(ctx: ActionContext, job_id: int, caller: Caller, verb: BulkAction) -> Job:
    """The job as it is then. Raises NotFound and what the verb refuses."""
    with ctx.records.write() as tx:
        step = ActionTransaction(ctx, tx, caller, ctx.clock.now())
        job = tx.job(job_id)
        if verb.prepare is not None:
            verb.prepare(step, [job])
        verb.act(step, job)
        _write(step, verb)
    _publish(step, verb)
    with ctx.records.read() as reader:
        return reader.job(job_id)


def run_many(ctx: ActionContext, ids: Iterable[int], caller: Caller, verb: BulkAction) -> list[ActionResult]:
    """In the order given, each id once. What one job is refused for keeps no other from being done. Raises Unavailable;
    what earlier transactions did stays done, and may be asked for again."""
    done: list[ActionResult] = []
    wanted = tuple(dict.fromkeys(ids))
    most = ALL_AT_ONCE if verb.at_once else PER_TRANSACTION
    for start in range(0, len(wanted), most):
        some = wanted[start : start + most]
        try:
            done += _transaction(ctx, some, caller, verb)
        except Unavailable:
            raise
        except GpuqError:
            # One of them changed in the same moment, by somebody who takes no turns with us: only that one is refused.
            done += _one_by_one(ctx, some, caller, verb)
    return done


def _one_by_one(ctx: ActionContext, ids: Collection[int], caller: Caller, verb: BulkAction) -> list[ActionResult]:
    done: list[ActionResult] = []
    for job_id in ids:
        try:
            done += _transaction(ctx, (job_id,), caller, verb)
        except Unavailable:
            raise
        except GpuqError as error:
            done.append(ActionResult(job_id, error=error))
    return done


def _transaction(ctx: ActionContext, ids: tuple[int, ...], caller: Caller, verb: BulkAction) -> list[ActionResult]:
    with ctx.records.write() as tx:
        step = ActionTransaction(ctx, tx, caller, ctx.clock.now())
        found = {job.id: job for job in tx.jobs(JobFilter(ids=ids))}
        if verb.prepare is not None:
            verb.prepare(step, list(found.values()))
        done = [_each(step, job_id, found.get(job_id), verb) for job_id in ids]
        _write(step, verb)
    _publish(step, verb)
    return done


def _each(step: ActionTransaction, job_id: int, job: Job | None, verb: BulkAction) -> ActionResult:
    try:
        if job is None:
            raise NotFound(f"there is no job {job_id}", hint="`gpuq status -a` lists every job")
        return ActionResult(job_id, state=verb.act(step, job))
    except Unavailable:
        raise
    except GpuqError as error:
        return ActionResult(job_id, error=error)


def _write(step: ActionTransaction, verb: BulkAction) -> None:
    step.write()
    if verb.written is not None:
        verb.written(step)


def _publish(step: ActionTransaction, verb: BulkAction) -> None:
    if verb.committed is not None:
        verb.committed()
    step.tell()
