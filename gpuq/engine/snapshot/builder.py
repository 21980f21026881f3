"""The snapshot for the scheduler: hot queue heads, the facts of those jobs, GPUs as seen now, what is held."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from gpuq.domain.gpu import GpuObservation
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import SnapshotContext
from gpuq.engine.hot.queue_hints import unpublish_jobs
from gpuq.engine.snapshot.candidates import ExpectedRuns, candidate, longest
from gpuq.engine.snapshot.devices import devices
from gpuq.engine.snapshot.gpu_hours import GpuHours
from gpuq.engine.snapshot.gpu_processes import belongs_to, exists
from gpuq.engine.snapshot.ledger import ledger
from gpuq.engine.snapshot.limit_bypass import past_limits
from gpuq.engine.snapshot.policy import policy
from gpuq.engine.snapshot.usage import see_peaks
from gpuq.engine.switches import Switches, read_switches
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.records import Waiting
from gpuq.scheduler.budget import Over, behind_others, yielding
from gpuq.scheduler.limits import Usage
from gpuq.scheduler.overtaking import PATIENCE_S
from gpuq.scheduler.snapshot import Action, Candidate, Holding, Snapshot, Wait

log = logging.getLogger(__name__)

# How many of each GPU count are looked at: those behind them cannot start before them, except past jobs that a limit
# keeps back.
HEADS = 64
FACTS_KEPT = 20_000
# A long run of jobs that are kept back is read again only after so many times what the reading took.
PAST_COST_FACTOR = 10.0
# A reading of the driver older than this is not trusted to give a GPU away.
READING_MAX_AGE_S = 1.0
OLDEST_EVERY_S = 600.0


class SnapshotBuilder:
    """Builds snapshots, and keeps what does not change between two: job facts by (id, score), the last reading of the
    GPUs. One thread only. `use_median`: run times are medians instead of means, for estimates that people read."""

    def __init__(self, ctx: SnapshotContext, *, use_median: bool = False) -> None:
        self._ctx = ctx
        self._use_median = use_median
        self._facts: dict[int, Waiting] = {}
        self._candidates: dict[int, tuple[Waiting, Candidate]] = {}
        self._observations: Sequence[GpuObservation] = ()
        self._observed_at = float("-inf")
        self._switches: Switches | None = None
        self._promises: dict[int, float] = {}
        self._aged: list[int] = []
        self._line: list[Waiting] | None = None
        self._cut = False
        self._aged_at = float("-inf")
        self._past: list[Waiting] = []
        self._past_at = float("-inf")
        self._no_account: dict[tuple[str, int | None], str] = {}
        self.hours = GpuHours(ctx)

    def forget(self, switches: Switches | None = None) -> None:
        """Somebody changed a job, paused, drained, or set a limit. `switches`: what is set now, if the caller knows."""
        self._facts.clear()
        self._candidates.clear()
        self._switches = switches
        self._past_at = float("-inf")
        self.hours.forget()

    def switches(self) -> Switches:
        """What people have set (pause, drains, group limits), read once and kept until it is dropped."""
        if self._switches is None:
            with self._ctx.records.read() as tx:
                self._switches = read_switches(tx, self._ctx.node)
        return self._switches

    def observe(self, max_age_s: float = READING_MAX_AGE_S) -> Sequence[GpuObservation]:
        """A reading of every GPU that is at most `max_age_s` seconds old."""
        monotonic = self._ctx.clock.monotonic()
        if monotonic - self._observed_at > max_age_s:
            self._observations = self._ctx.gpus.observe(self._ctx.clock.now())
            self._observed_at = monotonic
        return self._observations

    def waiting(self, tracked_attempts: Collection[TrackedAttempt] = (), *, fresh: bool = True) -> list[Waiting]:
        """Facts of the queue's heads, and of those behind them if limits keep the heads back, in line order. Unless
        `fresh`, what is left of the last reading serves, as long as it reaches far enough: nobody has said that the
        queue changed, and a start is checked against the stores anyhow. Raises HotStoreUnavailable or HotStoreCold."""
        if fresh or self._line is None or (self._cut and len(self._line) < HEADS // 2):
            self._line = self._read_line(tracked_attempts)
        return list(self._line)

    def _read_line(self, tracked_attempts: Collection[TrackedAttempt]) -> list[Waiting]:
        heads = self._ctx.queue.heads(HEADS)
        missing = [head.job_id for head in heads if not self._known(head)]
        if missing:
            self._read(missing, heads)
        line = [self._facts[head.job_id] for head in heads if head.job_id in self._facts]
        self._cut = len(heads) >= HEADS
        return self._with_the_oldest(self._past_limits(line, tracked_attempts)) if line else line

    @property
    def line_is_empty(self) -> bool:
        """Whether the last reading found nobody in line, and nobody came since."""
        return self._line is not None and not self._line

    def take_in(self, jobs: Sequence[Waiting]) -> bool:
        """Puts new queued jobs into the line that was read last. False when that reading does not reach far enough to
        say where they stand: then it is to be read anew."""
        if self._line is None or self._cut:
            return False
        self._facts.update((job.id, job) for job in jobs)
        self._line = sorted([*self._line, *jobs], key=lambda job: (job.score, job.id))
        self._cut = len(self._line) >= HEADS
        return True

    def usage(self, tracked_attempts: Collection[TrackedAttempt], waiting: Iterable[Waiting] = ()) -> Usage:
        """What these attempts hold against the limits, with those of whom something is `waiting` and who may start
        nothing for want of an account, or come last."""
        over = self._over(waiting, tracked_attempts)
        rules = policy(self._ctx, self.switches(), self._no_account, over)
        return Usage(rules, [tracked.holding(0.0) for tracked in tracked_attempts])

    def _over(self, waiting: Iterable[Waiting], tracked_attempts: Collection[TrackedAttempt]) -> Over:
        owners = {(job.user, job.group) for job in waiting}
        return self.hours.over(self.switches().limits, owners, tracked_attempts)

    def _past_limits(self, line: list[Waiting], tracked_attempts: Collection[TrackedAttempt]) -> list[Waiting]:
        """With those behind the heads of every size whose heads a limit keeps back."""
        self._look_up_accounts(line)
        usage = self.usage(tracked_attempts, line)
        seen = Counter(job.gpus for job in line)
        crowded = {gpus for gpus, count in seen.items() if count >= HEADS}
        if not any(job.gpus in crowded and usage.behind(candidate(job)) for job in line):
            return line
        begun = self._ctx.clock.monotonic()
        if begun >= self._past_at:
            with self._ctx.records.read() as tx:
                self._past = [
                    job
                    for gpus in sorted(crowded)
                    for job in past_limits(tx, [j for j in line if j.gpus == gpus], usage, enough=HEADS, gpus=gpus)
                ]
            now = self._ctx.clock.monotonic()
            self._past_at = now + PAST_COST_FACTOR * (now - begun)
        known = {job.id for job in line}
        return sorted([*line, *(j for j in self._past if j.id not in known)], key=lambda job: (job.score, job.id))

    def _look_up_accounts(self, waiting: Iterable[Waiting]) -> None:
        """Once for each user, and for no longer than this plan: an account may go, or come back, at any time."""
        accounts = self._ctx.accounts
        users = {(job.user, job.uid) for job in waiting} if accounts.apart else ()
        self._no_account = {who: why for who in users if (why := accounts.why_not(*who)) is not None}

    def _with_the_oldest(self, line: list[Waiting]) -> list[Waiting]:
        """A job that has waited for very long comes first (see the scheduler), so it must be seen behind the heads."""
        monotonic = self._ctx.clock.monotonic()
        if self._cut and monotonic - self._aged_at > OLDEST_EVERY_S:
            self._aged_at = monotonic
            now, most = self._ctx.clock.now(), max(job.gpus for job in line)
            # Those without an account wait on, and would hide whoever has waited almost as long.
            limit = HEADS if self._no_account else 1
            with self._ctx.records.read() as tx:
                self._aged = [
                    *tx.oldest_queued(before=now - PATIENCE_S, gpus=most, limit=limit),
                    *tx.oldest_queued(before=now - 2 * PATIENCE_S, gpus=1, limit=limit),
                ]
        hidden = set(self._aged) - {job.id for job in line}
        if not hidden:
            return line
        with self._ctx.records.read() as tx:
            found = tx.waiting(sorted(hidden))
        return sorted([*line, *found.values()], key=lambda job: (job.score, job.id))

    def _known(self, head: QueueEntry) -> bool:
        facts = self._facts.get(head.job_id)
        return facts is not None and facts.score == head.score

    def _read(self, missing: Sequence[int], heads: Sequence[QueueEntry]) -> None:
        if len(self._facts) > FACTS_KEPT:
            self._facts.clear()
            self._candidates.clear()
            missing = [head.job_id for head in heads]
        with self._ctx.records.read() as tx:
            found = tx.waiting(missing)
        self._facts.update(found)
        gone = set(missing) - found.keys()
        for job_id in gone:
            self._facts.pop(job_id, None)
        # Not queued in SQL any more: a hint that came late.
        unpublish_jobs(self._ctx, [(head.job_id, head.gpus) for head in heads if head.job_id in gone])

    def drop(self, job_ids: Collection[int]) -> None:
        """These left the queue; if they come back, their facts are read again."""
        for job_id in job_ids:
            self._facts.pop(job_id, None)
            self._candidates.pop(job_id, None)
            self._promises.pop(job_id, None)
        if self._line is not None and job_ids:
            gone = set(job_ids)
            self._line = [job for job in self._line if job.id not in gone]
            self._past = [job for job in self._past if job.id not in gone]

    def snapshot(self, waiting: Sequence[Waiting], tracked_attempts: Collection[TrackedAttempt]) -> Snapshot:
        """All that the scheduler sees, frozen. The GPUs are read only when a waiting job asks for one."""
        ctx = self._ctx
        switches = self.switches()
        self._look_up_accounts(waiting)
        if self._no_account:
            waiting = [job for job in waiting if (job.user, job.uid) not in self._no_account]
        observations = self.observe() if any(job.gpus for job in waiting) else self._observations
        # A job on a shared GPU may have grown since the last sample: without its new peak the GPU looks emptier than it
        # is, and another share would be placed on memory that is in use.
        if any(tracked.mem_mb is not None for tracked in tracked_attempts):
            see_peaks(observations, tracked_attempts)
        over = self._over(waiting, tracked_attempts)
        often = self._preemptions(waiting, tracked_attempts, over)
        runs = ExpectedRuns(ctx, waiting, use_median=self._use_median)
        return Snapshot(
            devices=devices(
                ctx.gpus.inventory(),
                observations,
                ledger(tracked_attempts),
                switches.drained,
                _ours(tracked_attempts),
                ctx.strays,
            ),
            holdings=[
                yielding(self._holding(tracked, often.get(tracked.job.id, 0)), over) for tracked in tracked_attempts
            ],
            waiting=[
                behind_others(replace(one, preemptions_last_hour=often[one.id]) if one.id in often else one, over)
                for one in map(self._candidate, waiting)
            ],
            policy=policy(ctx, switches, self._no_account, over),
            paused=switches.paused,
            expected=runs.seconds,
            promises=self._promises,
            window=switches.window,
            longest=longest(ctx, waiting),
            span=runs.span if self._use_median else None,
        )

    def _candidate(self, job: Waiting) -> Candidate:
        """Made once for the same facts: most of the line is what it was in the plan before."""
        known = self._candidates.get(job.id)
        if known is None or known[0] is not job:
            known = self._candidates[job.id] = (job, candidate(job))
        return known[1]

    def _preemptions(
        self, waiting: Sequence[Waiting], tracked_attempts: Collection[TrackedAttempt], over: Over
    ) -> dict[int, int]:
        """In the last hour, by job id, of preemptible jobs that have run before: seldom any, so asked anew."""
        ids = {job.id for job in waiting if job.attempt and (job.preemptible or over.of(job.user, job.group))}
        live = (tracked.job for tracked in tracked_attempts if tracked.number > 1)
        ids |= {job.id for job in live if job.preemptible or over.of(job.user, job.group)}
        if not ids:
            return {}
        with self._ctx.records.read() as tx:
            return tx.preemptions(ids, since=self._ctx.clock.now() - 3600.0)

    def _holding(self, tracked: TrackedAttempt, preemptions: int) -> Holding:
        job = tracked.job
        elapsed = max(0.0, self._ctx.clock.now() - tracked.started_at)
        found = self._ctx.run_times.expect(
            job.user, job.command, job.gpus, job.time_limit_s, elapsed, use_median=self._use_median
        )
        return tracked.holding(found.seconds, preemptions, found.span)

    def remember_reservations(self, actions: Sequence[Action]) -> None:
        """Keeps the start time that the first job in line was given first, so that its reservation does not drift."""
        for action in actions:
            if isinstance(action, Wait) and action.reserved_at is not None:
                self._promises.setdefault(action.job_id, action.reserved_at)


def _ours(tracked_attempts: Collection[TrackedAttempt]) -> Callable[[int], bool]:
    """Whether a process that the driver names belongs to one of these, or is gone already: one that is may linger in
    the driver's list for a moment."""
    supervisors = {tracked.launched.supervisor_pid for tracked in tracked_attempts if tracked.launched}
    sessions = {tracked.launched.pid for tracked in tracked_attempts if tracked.launched}
    return lambda pid: not exists(pid) or belongs_to(pid, supervisors, sessions)
