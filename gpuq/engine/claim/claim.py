"""The only committer of starts: leases first (all or none), then the claim in SQL, then the launch.

The ends that made room for the starts are written in the same transaction, and their leases make way in the same
script: half the commits and half the calls where one job follows another.

Whoever dies between two of these steps leaves something that is found again: leases without a claim expire and
rehydration puts the member back; a claim whose attempt never launched is given back by the reaper.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpuq.domain import failpoints
from gpuq.domain.caller import ACTOR
from gpuq.domain.gpu import Gpu
from gpuq.domain.job import Job
from gpuq.domain.states import JobState
from gpuq.engine.attempt.environment import job_environment, supervisor_spec
from gpuq.engine.context import Context
from gpuq.engine.hot.queue_hints import note_missed_hint
from gpuq.engine.node_lock import Fence
from gpuq.engine.outcome.finish import Ended, announce, classified, finish, finish_in
from gpuq.errors import GpuqError, HotStoreUnavailable, LeaseLost, NodeTaken, NotFound, WrongState
from gpuq.ports.hot_queue import GpuClaim, QueueEntry, Taken
from gpuq.ports.launcher import LaunchOrder
from gpuq.ports.records import Move, NewAttempt, Waiting, Writer
from gpuq.scheduler.snapshot import Start

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that is `starting`: its leases are set, its attempt row is written, nothing is launched yet."""

    job: Job
    number: int
    token: str
    gpus: tuple[Gpu, ...]
    mem_mb: int | None
    claimed_at: float
    order: LaunchOrder


@dataclass(frozen=True, slots=True)
class _Leased:
    waiting: Waiting
    token: str
    gpus: tuple[Gpu, ...]

    @property
    def entry(self) -> QueueEntry:
        return QueueEntry(self.waiting.id, self.waiting.gpus, self.waiting.score)


def claim(
    ctx: Context, starts: Sequence[Start], waiting: Mapping[int, Waiting], fence: Fence, ended: Sequence[Ended] = ()
) -> list[Claimed]:
    """The starts that held up against the stores; the others changed under the plan and are left to the next one.
    The ends are written with them, or by themselves when they cannot be.

    Raises DatabaseUnavailable, and NodeTaken when another agent took the node, after giving every lease back, with
    nothing written; and HotStoreUnavailable when Redis is gone: nothing was taken, and the ends are not written.
    """
    leased = _lease(ctx, starts, waiting, [item.token for item in ended])
    if not leased and not ended:
        return []
    known = classified(ctx, ended)
    claimed: list[Claimed] = []
    refused: list[_Leased] = []
    try:
        with ctx.records.write() as tx:
            fence.check(tx)
            written = finish_in(ctx, tx, known)
            for item in leased:
                try:
                    claimed.append(_claim_one(ctx, tx, item))
                except (WrongState, LeaseLost, NotFound):
                    # Cancelled, held or changed since it was read. The guard matched no row, so nothing is written.
                    refused.append(item)
            if ended:
                failpoints.point("finish.before_commit")
            failpoints.point("claim.before_commit")
    except GpuqError as error:
        for item in leased:
            _give_back(ctx, item)
        if isinstance(error, LeaseLost) and not isinstance(error, NodeTaken):
            # One of the ends is not a live attempt's any more: each by itself, and the starts by the next plan.
            finish(ctx, known)
            return []
        raise
    if ended:
        failpoints.point("finish.committed")
    failpoints.point("claim.committed")
    for item in refused:
        _release(ctx, item)
    if ended:
        announce(ctx, written)
    return claimed


def _lease(ctx: Context, starts: Sequence[Start], waiting: Mapping[int, Waiting], over: Sequence[str]) -> list[_Leased]:
    gpus = ctx.gpu_by_uuid()
    leased: list[_Leased] = []
    for start in starts:
        facts = waiting[start.job_id]
        chosen = tuple(gpus[uuid] for uuid in start.gpu_uuids)
        item = _Leased(facts, ctx.new_token(), chosen)
        claims = [GpuClaim(gpu.uuid, facts.gpu_mem_mb, gpu.memory_mb) for gpu in chosen]
        try:
            answer = ctx.leases.take(item.entry, ctx.node, item.token, claims, ctx.settings.lease_ttl, over)
        except HotStoreUnavailable as error:
            # The answer may have been lost, not the call: then the member is gone, and the leases expire.
            note_missed_hint(ctx, error)
            if not leased:
                raise
            break
        if answer is Taken.TAKEN:
            leased.append(item)
            failpoints.point("lease.taken")
        elif answer is Taken.BUSY:
            log.warning("job %d: a GPU of %s is still leased to somebody", facts.id, [gpu.index for gpu in chosen])
    return leased


def _claim_one(ctx: Context, tx: Writer, item: _Leased) -> Claimed:
    now = ctx.clock.now()
    facts, gpus = item.waiting, item.gpus
    number = facts.attempt + 1
    job = tx.job(facts.id)
    tx.move(
        Move(
            facts.id,
            JobState.STARTING,
            frozenset({JobState.QUEUED}),
            ACTOR,
            now,
            detail="on gpus " + ",".join(str(gpu.index) for gpu in gpus) if gpus else "without a gpu",
            # Guards against another attempt since the facts were read.
            attempt=facts.attempt,
            set={"attempt": number, "token": item.token, "started_at": None},
            seen=(job.state, job.attempt, job.token),
        )
    )
    run_dir = ctx.run_dir(facts.id, number)
    log_path = f"{run_dir}/output.log"
    uuids = tuple(gpu.uuid for gpu in gpus)
    indices = tuple(gpu.index for gpu in gpus)
    tx.add_attempt(
        NewAttempt(
            facts.id,
            number,
            item.token,
            ctx.node,
            ctx.boot_id,
            indices,
            uuids,
            facts.gpu_mem_mb,
            run_dir,
            log_path,
            now,
        )
    )
    spec, uid, gid = tx.spec(facts.id)
    env = job_environment(
        spec,
        job,
        number=number,
        token=item.token,
        gpus=gpus,
        home=str(ctx.home),
        run_dir=run_dir,
        checkpoint_dir=ctx.checkpoint_dir(facts.id),
        now=now,
    )
    grace = ctx.settings.kill_grace
    payload = supervisor_spec(spec, job, env, number=number, token=item.token, uid=uid, gid=gid, kill_grace_s=grace)
    order = LaunchOrder(facts.id, number, item.token, run_dir, log_path, payload)
    job = replace(job, state=JobState.STARTING, attempt=number, token=item.token)
    return Claimed(job, number, item.token, gpus, facts.gpu_mem_mb, now, order)


def _give_back(ctx: Context, item: _Leased) -> None:
    """Best effort: if Redis is away too, the leases expire and rehydration puts the member back."""
    try:
        ctx.leases.give_back(item.entry, ctx.node, item.token, [gpu.uuid for gpu in item.gpus])
    except HotStoreUnavailable as error:
        log.warning("job %d: lease not given back: %s", item.waiting.id, error.message)
        note_missed_hint(ctx, error)


def _release(ctx: Context, item: _Leased) -> None:
    try:
        ctx.leases.release(ctx.node, item.token, [gpu.uuid for gpu in item.gpus])
    except HotStoreUnavailable as error:
        log.warning("job %d: lease not released: %s", item.waiting.id, error.message)
