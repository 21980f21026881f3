"""GPUs for a job that is about to be stored: the look for them, and the claim with the job's row (see `direct`)."""

from __future__ import annotations

import logging
from collections.abc import Collection
from itertools import islice

from gpuq.domain.states import JobState
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.claim.leased import Leased, release, take_leases
from gpuq.engine.claim.starting import record_newborn_starting
from gpuq.engine.context import Context
from gpuq.engine.intake.newborn import waiting_of
from gpuq.engine.node_lock import Fence
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.errors import DatabaseUnavailable, NodeTaken, WrongState
from gpuq.ports.records import NewJob, Waiting, Writer
from gpuq.scheduler.plan import plan
from gpuq.scheduler.snapshot import Start

log = logging.getLogger(__name__)


class Chance:
    """GPUs that are leased to a job which is about to be stored. `claimed`: its attempt, once that is durable."""

    def __init__(self, ctx: Context, fence: Fence, leased: Leased) -> None:
        self._ctx = ctx
        self._fence = fence
        self._leased = leased
        self._written: TrackedAttempt | None = None
        self.claimed: TrackedAttempt | None = None

    def claim(self, tx: Writer, job_id: int, new: NewJob) -> None:
        """In the transaction that has stored the job. Leaves it as it is where something else has a say after all."""
        if new.state is not JobState.QUEUED or [row[0] for row in islice(tx.queued(batch=2), 2)] != [job_id]:
            return
        item = Leased(waiting_of(job_id, new, None), self._leased.token, self._leased.gpus)
        try:
            # Undone by itself: whatever is wrong with the start, the submission is not.
            with tx.part():
                self._fence.check(tx)
                self._written = record_newborn_starting(self._ctx, tx, item, new)
        except (NodeTaken, WrongState) as error:
            log.debug("job %d not started with its submission: %s", job_id, error.message)
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("job %d not started with its submission", job_id)

    def committed(self) -> bool:
        """After the transaction: whether the job is claimed."""
        self.claimed = self._written
        return self.claimed is not None

    def give_up(self) -> None:
        """The GPUs are free again. Best effort, as leases expire."""
        release(self._ctx, self._leased)


def look_for_chance(
    ctx: Context, snapshots: SnapshotBuilder, fence: Fence, job: Waiting, tracked_attempts: Collection[TrackedAttempt]
) -> Chance | None:
    """None when the job has to wait, or not for this alone. `tracked_attempts` hold their GPUs. Raises
    HotStoreUnavailable and DatabaseUnavailable; then nothing is leased."""
    if snapshots.switches().paused is not None:
        return None
    snapshot = snapshots.snapshot([job], tracked_attempts)
    # It has no id yet under which anything should be remembered.
    snapshots.drop([job.id])
    actions = plan(snapshot, ctx.clock.now(), waits=0)
    starts = [action for action in actions if isinstance(action, Start)]
    if len(starts) != 1 or len(actions) != 1:
        return None
    leased = take_leases(ctx, starts, {job.id: job}, (), {job.id})
    return Chance(ctx, fence, leased[0]) if leased else None
