"""How a verb is done to one job, or to many: guarded writes, as many jobs to a transaction as others can wait for, and
one word to the hot queue behind each commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.priority import Priority
from gpuq.domain.states import JobState
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.queue_hints import publish_jobs, unpublish_jobs
from gpuq.errors import GpuqError, Unavailable
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import JobFilter, Writer

# Jobs. SQLite has one writer: for so many it is busy for about a quarter of a second, and everybody waits.
PER_TRANSACTION = 500


@dataclass(slots=True)
class ActionTransaction:
    """One transaction of a verb: what it works with, and which hints and notifications follow its commit."""

    ctx: ActionContext
    tx: Writer
    caller: Caller
    now: float
    # (id, gpus) of jobs that are not queued any more.
    gone: list[tuple[int, int]] = field(default_factory=list)
    ready: list[QueueEntry] = field(default_factory=list)
    # Who is to look again: `changed` what it remembers of jobs, `delayed` at the earliest begin.
    topics: set[Topic] = field(default_factory=set)
    # (score, id) of the first waiting job of a priority and a user (None: of all), as this step has left it.
    fronts: dict[tuple[Priority, str | None], tuple[float, int]] = field(default_factory=dict)

    def tell(self) -> None:
        """Brings the hot queue and the listeners up to date; called after the commit, never before."""
        unpublish_jobs(self.ctx, self.gone)
        for topic in sorted(self.topics):
            # Before the members show up: what the agent remembers of them is out of date.
            self.ctx.notifier.publish(topic)
        publish_jobs(self.ctx, self.ready)
        self.ctx.notifier.publish(Topic.EVENTS)


@dataclass(frozen=True, slots=True)
class BulkAction:
    """`act` returns the job's state after it. Its first write is a guarded one and the last that can be refused, so
    that a refusal leaves nothing behind. `committed` is called after the commit, before its notifications."""

    act: Callable[[ActionTransaction, Job], JobState]
    committed: Callable[[], None] | None = None


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
        verb.act(step, tx.job(job_id))
    _publish(step, verb)
    with ctx.records.read() as reader:
        return reader.job(job_id)


def run_many(ctx: ActionContext, ids: Iterable[int], caller: Caller, verb: BulkAction) -> list[ActionResult]:
    """In the order given, each id once. What one job is refused for keeps no other from being done. Raises Unavailable;
    what earlier transactions did stays done, and may be asked for again."""
    done: list[ActionResult] = []
    wanted = tuple(dict.fromkeys(ids))
    for start in range(0, len(wanted), PER_TRANSACTION):
        some = wanted[start : start + PER_TRANSACTION]
        with ctx.records.write() as tx:
            step = ActionTransaction(ctx, tx, caller, ctx.clock.now())
            found = {job.id: job for job in tx.jobs(JobFilter(ids=some))}
            done += [_each(step, job_id, found.get(job_id), verb) for job_id in some]
        _publish(step, verb)
    return done


def _each(step: ActionTransaction, job_id: int, job: Job | None, verb: BulkAction) -> ActionResult:
    try:
        return ActionResult(job_id, state=verb.act(step, job or step.tx.job(job_id)))
    except Unavailable:
        raise
    except GpuqError as error:
        return ActionResult(job_id, error=error)


def _publish(step: ActionTransaction, verb: BulkAction) -> None:
    if verb.committed is not None:
        verb.committed()
    step.tell()
