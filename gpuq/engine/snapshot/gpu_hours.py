"""Who is over the GPU-hours, as the plan is told: SQL's sums of what has ended, and what runs now.

Nothing is asked where nobody has such a limit. The sums are read again after an end, and otherwise every half minute,
because hours also leave the window; they cost a row for each user, group and hour.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from gpuq.domain.limits import LimitBook
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import SnapshotContext
from gpuq.ports.records import Reader
from gpuq.scheduler.budget import NOBODY, Over, over_hours

EVERY_S = 30.0
# While ends come in quickly the last sums serve for this many times what it cost to read them.
COST_FACTOR = 10.0

Sums = Mapping[float, Mapping[tuple[str, str | None], float]]


def sums(tx: Reader, windows: Iterable[float], now: float) -> Sums:
    """By window in seconds, then user and group: GPU-seconds of what has ended within it."""
    return {window: tx.gpu_seconds(now - window) for window in windows}


class GpuHours:
    """One thread only."""

    def __init__(self, ctx: SnapshotContext) -> None:
        self._ctx = ctx
        self._sums: Sums = {}
        self._read_at = float("-inf")
        self._cost_s = 0.0
        self._ended: Sequence[TrackedAttempt] = ()
        self._stale = True

    def forget(self) -> None:
        """Limits may have changed."""
        self._stale = True

    def note_ended(self, ended: Sequence[TrackedAttempt]) -> None:
        """These have ended and may not be in SQL yet; those that were noted before are."""
        self._stale = self._stale or bool(self._ended) or bool(ended)
        self._ended = ended

    def over(
        self, book: LimitBook, owners: Iterable[tuple[str, str | None]], tracked_attempts: Collection[TrackedAttempt]
    ) -> Over:
        """Who has used up the GPU-hours, of these users and groups and of whoever has used any."""
        if not book.windows:
            return NOBODY
        self._refresh(book)
        now = self._ctx.clock.now()
        live = [
            (tracked.job.user, tracked.job.group, (now - tracked.started_at, len(tracked.gpu_uuids)))
            for tracked in (*tracked_attempts, *self._ended)
            if tracked.gpu_uuids
        ]

        def used(kind: str, name: str, window_s: float) -> float:
            ended = self._sums.get(window_s, {}).items()
            place = 0 if kind == "user" else 1
            running = (min(max(ran, 0.0), window_s) * gpus for *owner, (ran, gpus) in live if owner[place] == name)
            return sum(seconds for owner, seconds in ended if owner[place] == name) + sum(running)

        known = {owner for ended in self._sums.values() for owner in ended}
        return over_hours(book, used, known | {(user, group) for user, group, _ in live} | set(owners))

    def _refresh(self, book: LimitBook) -> None:
        monotonic = self._ctx.clock.monotonic()
        age = monotonic - self._read_at
        if age >= EVERY_S or (self._stale and age >= COST_FACTOR * self._cost_s) or book.windows - self._sums.keys():
            with self._ctx.records.read() as tx:
                self._sums = sums(tx, book.windows, self._ctx.clock.now())
            self._stale, self._read_at = False, monotonic
            self._cost_s = self._ctx.clock.monotonic() - monotonic
