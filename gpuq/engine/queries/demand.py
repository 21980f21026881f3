"""What each user has in the queue and on the GPUs now, and how many jobs of each priority wait: for `/metrics`.

A scrape comes every few seconds, whatever waits. What runs is as little as the machine has room for; what waits is
counted by the database, by the index of their states, and seldom where that takes long.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuq.domain.priority import Priority
from gpuq.domain.states import ACTIVE, WAITING
from gpuq.engine.context import QueryContext
from gpuq.ports.records import JobFilter, Reader

# Counting again what waits is put off for this many times what it took, and for so many seconds at most. A hundred
# thousand jobs are counted in some 45 ms, so once in 45 s, which is a thousandth of a processor.
COST_FACTOR = 1000.0
LONGEST_S = 300.0
# Users by name; all beyond are added up under OTHER. Every name is a time series that Prometheus keeps for weeks.
MOST_USERS = 50
OTHER = "other"


@dataclass(slots=True)
class UserTotal:
    """Of a user: jobs that run, jobs that wait, and GPUs held, whole ones and shares alike."""

    running: int = 0
    waiting: int = 0
    gpus: int = 0

    def add(self, more: UserTotal) -> None:
        """Counts those of another, too."""
        self.running += more.running
        self.waiting += more.waiting
        self.gpus += more.gpus


@dataclass(frozen=True, slots=True)
class Demand:
    """`users`: of those who run or wait, by name. `waiting`: jobs of each priority."""

    users: dict[str, UserTotal] = field(default_factory=dict)
    waiting: dict[Priority, int] = field(default_factory=dict)


class DemandQuery:
    """One per process, because it keeps what it counted; thread-safe."""

    def __init__(self, ctx: QueryContext) -> None:
        self._ctx = ctx
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        # The last event at that time, and when to count again at the earliest.
        self._counted: tuple[int, float] = (-1, 0.0)

    def ask(self) -> Demand:
        """Numbers of now; of what waits, from up to LONGEST_S before in a long line. Raises DatabaseUnavailable."""
        with self._ctx.records.read() as tx:
            running = tx.jobs(JobFilter(states=ACTIVE))
            waiting = self._waiting(tx)
        found = Demand(waiting=dict.fromkeys(Priority, 0))
        for (user, priority), count in waiting.items():
            found.users.setdefault(user, UserTotal()).waiting += count
            found.waiting[Priority(priority)] += count
        for job in running:
            found.users.setdefault(job.user, UserTotal()).add(UserTotal(running=1, gpus=len(job.gpu_indices or ())))
        return found

    def _waiting(self, tx: Reader) -> Counter[tuple[str, int]]:
        """By user and priority."""
        if not tx.count(JobFilter(states=WAITING)):
            return Counter()
        with self._lock:
            event, now = tx.last_event_id(), self._ctx.clock.monotonic()
            if event != self._counted[0] and now >= self._counted[1]:
                states = ", ".join(f"'{state}'" for state in sorted(WAITING))
                _, rows = self._ctx.history.query(
                    f'SELECT "user", priority, count(*) FROM jobs WHERE state IN ({states}) GROUP BY 1, 2'
                )
                self._counts = Counter({(user, priority): count for user, priority, count in rows})
                done = self._ctx.clock.monotonic()
                self._counted = (event, done + min(LONGEST_S, COST_FACTOR * (done - now)))
            return self._counts


def bounded(users: Mapping[str, UserTotal], most: int = MOST_USERS) -> dict[str, UserTotal]:
    """At most so many rows: those who hold and wait most by name, all others as OTHER."""
    if len(users) <= most:
        return dict(users)
    ordered = sorted(users.items(), key=lambda row: (-row[1].gpus, -row[1].running, -row[1].waiting, row[0]))
    kept = dict(ordered[: most - 1])
    # An account may be called that; it then counts among the others.
    others = kept.pop(OTHER, UserTotal())
    rest = UserTotal(others.running, others.waiting, others.gpus)
    for _, total in ordered[most - 1 :]:
        rest.add(total)
    return {**kept, OTHER: rest}
