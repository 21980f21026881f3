"""The only committer of starts and of ends.

A start: leases first (all or none), then the claim in SQL, then the launch. The ends that made room for the starts are
written in the same transaction, and their leases make way in the same script: half the commits and half the calls where
one job follows another.

Whoever dies between two of these steps leaves something that is found again: leases without a claim expire and
rehydration puts the member back; a claim whose attempt never launched is given back by the reaper.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence

from gpuq.domain import failpoints
from gpuq.engine.attempt.mishaps import note
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.claim.leased import Leased, give_back, release, take_leases
from gpuq.engine.claim.starting import record_starting
from gpuq.engine.context import Context
from gpuq.engine.node_lock import Fence
from gpuq.engine.outcome.classification import End, classified
from gpuq.engine.outcome.finish import Written, announce, record_end
from gpuq.errors import GpuqError, LeaseLost, NodeTaken, NotFound, WrongState
from gpuq.ports.records import Waiting
from gpuq.scheduler.snapshot import Start

log = logging.getLogger(__name__)


def claim(
    ctx: Context,
    starts: Sequence[Start],
    waiting: Mapping[int, Waiting],
    fence: Fence,
    ended: Sequence[TrackedAttempt] = (),
    unlisted: Container[int] = (),
) -> list[TrackedAttempt]:
    """The starts that held up against the stores, each with its launch order; the others changed under the plan and are
    left to the next one. The ends are written with them, or by themselves when they cannot be. `unlisted`: ids of jobs
    that may not stand in the hot queue yet.

    Raises DatabaseUnavailable, and NodeTaken when another agent took the node, after giving every lease back, with
    nothing written; and HotStoreUnavailable when Redis is gone: nothing was taken, and the ends are not written.
    """
    leased = take_leases(ctx, starts, waiting, [tracked.token for tracked in ended], unlisted)
    if not leased and not ended:
        return []
    return write_turn(ctx, ended, leased, fence).claimed


def write_turn(
    ctx: Context, ended: Sequence[TrackedAttempt], leased: Sequence[Leased] = (), fence: Fence | None = None
) -> Written:
    """Ends, whose `result` is set, and starts, in one transaction. When an end turns out not to be of a live attempt,
    or anything else goes wrong with one of them, each is written by itself and no start: their leases are given back
    and the next plan has them. An end that cannot be written is noted on its attempt, see `mishaps`.

    Starts need the `fence` of the node; ends are guarded by their own tokens. Raises DatabaseUnavailable and NodeTaken
    with every lease given back: the caller comes again with the ends, as the exit records stay.
    """
    ends = classified(ctx, ended)
    try:
        written = _write_together(ctx, ends, leased, fence)
    except Exception as error:
        if not ends and len(leased) > 1 and not isinstance(error, GpuqError):
            return _start_each_alone(ctx, leased, fence)
        for item in leased:
            give_back(ctx, item)
        ours = isinstance(error, NodeTaken) or (isinstance(error, GpuqError) and not isinstance(error, LeaseLost))
        if ours or (leased and not ends):
            raise
        written = _write_each_alone(ctx, ends)
    else:
        claimed = {tracked.token for tracked in written.claimed}
        for item in leased:
            if item.token not in claimed:
                release(ctx, item)
    if ended:
        announce(ctx, written)
    return written


def _write_together(ctx: Context, ends: Sequence[End], leased: Sequence[Leased], fence: Fence | None) -> Written:
    """All or nothing of the ends, and those of the starts that hold up. Raises LeaseLost for the sake of an end."""
    written = Written()
    with ctx.records.write() as tx:
        if fence is not None:
            fence.check(tx)
        for end in ends:
            record_end(ctx, tx, end, written)
        for item in leased:
            try:
                written.claimed.append(record_starting(ctx, tx, item))
            except (WrongState, LeaseLost, NotFound):
                # Cancelled, held or changed since it was read. The guard matched no row, so nothing is written; but one
                # whose secrets cannot be read is held with this.
                continue
        if ends:
            failpoints.point("finish.before_commit")
        if leased:
            failpoints.point("claim.before_commit")
    if ends:
        failpoints.point("finish.committed")
    if leased:
        failpoints.point("claim.committed")
    return written


def _start_each_alone(ctx: Context, leased: Sequence[Leased], fence: Fence | None) -> Written:
    """What can be started of them; the leases of one that cannot are given back. Raises DatabaseUnavailable and
    NodeTaken: those before it are claimed, and found by the reaper."""
    written = Written()
    for at, item in enumerate(leased):
        try:
            written.claimed += write_turn(ctx, (), [item], fence).claimed
        except GpuqError:
            for left in leased[at + 1 :]:
                give_back(ctx, left)
            raise
        except Exception:
            log.exception("job %d cannot be started; the others are", item.waiting.id)
    return written


def _write_each_alone(ctx: Context, ends: Sequence[End]) -> Written:
    """What can be written of the ends. Raises DatabaseUnavailable: those before it are written."""
    written = Written()
    for end in ends:
        tracked, _ = end
        try:
            one = _write_together(ctx, [end], (), None)
        except LeaseLost as error:
            log.warning("job %d attempt %d: end not written: %s", tracked.job.id, tracked.number, error.message)
            continue
        except GpuqError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the others'
            note(ctx, tracked, error)
            continue
        written.states.update(one.states)
        written.queued.extend(one.queued)
    return written
