"""What is seen of the processes of attempts that no control group holds, kept in SQL.

Should a supervisor and its fork server die together, what has left the job's session and cleared its environment is
known by this alone. While the supervisor lives everything of its job descends from it, so the last look is all that
there is to know; what came and went its own way between the last look and their death is not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.errors import DatabaseUnavailable, GpuqError
from gpuq.ports.records import Writer

log = logging.getLogger(__name__)


def note_at_start(ctx: Context, tx: Writer, tracked: TrackedAttempt) -> None:
    """In the transaction that says that it runs: who goes his own way does so first of all."""
    if (seen := _changed(ctx, tracked)) is not None:
        _note(ctx, tx, tracked, seen)


def note(ctx: Context, tracked_attempts: Iterable[TrackedAttempt]) -> None:
    """A look at each, and one transaction for all that has changed. Next time again what could not be written."""
    changed = [(tracked, seen) for tracked in tracked_attempts if (seen := _changed(ctx, tracked)) is not None]
    if not changed:
        return
    try:
        with ctx.records.write() as tx:
            for tracked, seen in changed:
                _note(ctx, tx, tracked, seen)
    except GpuqError as error:
        for tracked, _ in changed:
            tracked.family = None
        log.info("what was seen of processes is not written: %s", error.message)


def forget(ctx: Context) -> None:
    """Removes what is kept of attempts that have ended."""
    try:
        with ctx.records.write() as tx:
            tx.forget_processes()
    except GpuqError as error:
        log.info("what was seen of processes of ended attempts stays: %s", error.message)


def known(ctx: Context, tracked: TrackedAttempt) -> list[tuple[int, int]] | None:
    """PID and start time of each; None while the database does not say."""
    if tracked.family is not None:
        return tracked.family
    try:
        with ctx.records.read() as tx:
            return tx.processes(tracked.job.id, tracked.number)
    except DatabaseUnavailable:
        return None


def _changed(ctx: Context, tracked: TrackedAttempt) -> list[tuple[int, int]] | None:
    """What is seen now, if that is not what was noted."""
    if tracked.launched is None or tracked.grouped:
        return None
    seen = ctx.launcher.oversight.family(tracked.launched)
    if seen is None:
        return None
    tracked.grouped = seen.grouped
    before = tracked.family
    return None if seen.grouped or seen.processes == (before or []) else seen.processes


def _note(ctx: Context, tx: Writer, tracked: TrackedAttempt, seen: list[tuple[int, int]]) -> None:
    tx.note_processes(tracked.job.id, tracked.number, tracked.token, seen, ctx.clock.now())
    tracked.family = seen
