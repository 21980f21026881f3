"""Who starts where: the decision itself, before it is put into words.

EASY backfilling (Lifka 1995; Mu'alem and Feitelson 2001): jobs start in line order; the first that finds no room gets
a reservation, the time at which the holders' expected ends make room for it; a later job starts only if the first
still fits at that time. Reservations rest on expected run times and never on declared limits, which only kill
(Tsafrir, Etsion, Feitelson 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf

from gpuq.scheduler.closing import closing_of
from gpuq.scheduler.fit import Machine, Room, expected_end
from gpuq.scheduler.limits import Usage
from gpuq.scheduler.order import Line, Shape, line_of
from gpuq.scheduler.overtaking import overdue, whole_machine
from gpuq.scheduler.placement import positions
from gpuq.scheduler.snapshot import Candidate, Holding, Policy, Snapshot

# How many jobs of one shape are looked at for one that is short enough to pass a reservation.
DEPTH = 1000
# Who declares nothing lets others who declare nothing pass for this much of what it has waited when it comes first in
# line: expected run times are too uncertain there for a firm reservation to be worth the GPUs that idle for it. Where
# nobody declares anything, that takes the mean wait from 1.06 to 1.01 times that of greedy starts on the four traces.
SLACK = 0.2


@dataclass(frozen=True, slots=True)
class Reservation:
    """`soonest`: when `job` can have its GPUs, as far as is known, in epoch seconds; nobody who declares a time may
    hold them beyond. `at`: the same with slack, the latest that a job that declares nothing may hold them. `devices`:
    those that have room for it at `soonest`, as a mask."""

    job: Candidate
    shape: Shape
    soonest: float
    at: float
    devices: int

    def until(self, job: Candidate) -> float:
        """How long `job` may hold what this one counts on."""
        return self.at if job.time_limit_s is None else self.soonest


@dataclass(slots=True)
class Decision:
    """`starts`: jobs and the devices they get, as a mask. `first`: the reservation of the first GPU job in line that
    waits for nothing but other jobs' ends. `overtaking`: the job that overtakes those ahead of it in line, and the
    words why it does. `room` is what is left after the starts."""

    room: Room
    line: Line
    usage: Usage
    starts: list[tuple[Candidate, int]] = field(default_factory=list)
    first: Reservation | None = None
    overtaking: tuple[Candidate, str] | None = None
    paused: bool = False


def decide(snapshot: Snapshot, now: float) -> Decision:
    """What to start and to preempt now (`now` in epoch seconds), from the snapshot alone; a paused queue starts
    nothing."""
    policy = snapshot.policy
    room = occupied(Machine(snapshot.devices), snapshot, now)
    ends_in = None if room.closing is None else room.closing.ends_in
    decision = Decision(room, line_of(snapshot.waiting, policy, ends_in), Usage(policy, snapshot.holdings))
    if snapshot.paused is not None:
        decision.paused = True
        return decision
    _Turn(decision, snapshot, now).run()
    return decision


def occupied(machine: Machine, snapshot: Snapshot, now: float) -> Room:
    """The machine's GPUs with what holds them now, and when each is expected to be free."""
    room = Room(machine, closing_of(snapshot, now))
    for held in snapshot.holdings:
        end = yields_at(held, snapshot.policy, now)
        for uuid in held.gpu_uuids:
            at = machine.at.get(uuid)
            if at is not None:
                mem = None if held.mem_mb is None else max(held.mem_mb, held.peak_mb.get(uuid, 0))
                room.hold(at, end, mem)
    return room


def yields_at(held: Holding, policy: Policy, now: float) -> float:
    """When a running job's GPUs are expected to be free for another: its expected end, or earlier the time from
    which a preemptible one may be preempted."""
    end = expected_end(held, now)
    if held.preemptible and held.preemptions_last_hour < policy.preempt_max_per_hour:
        end = min(end, max(now, held.started_at + policy.preempt_min_run_s))
    return end


def run_time(snapshot: Snapshot) -> Callable[[Candidate], float]:
    """Seconds that a candidate is expected to hold its GPUs against a reservation."""
    known, policy = snapshot.expected, snapshot.policy

    def seconds(job: Candidate) -> float:
        expected = job.expected_s if known is None else known(job)
        if job.preemptible and job.preemptions_last_hour < policy.preempt_max_per_hour:
            return min(expected, policy.preempt_min_run_s)
        return expected

    return seconds


class _Turn:
    """One walk down the line."""

    def __init__(self, decision: Decision, snapshot: Snapshot, now: float) -> None:
        self._decision = decision
        self._room = decision.room
        self._machine = decision.room.machine
        self._policy = snapshot.policy
        self._now = now
        self._seconds = run_time(snapshot)
        self._promises = snapshot.promises
        # Shapes that may outlast the reservation: none, once one was found to push it, for room only shrinks.
        self._pushes: set[Shape] = set()

    def run(self) -> None:
        shapes = self._decision.line.shapes
        if len(shapes) == 1 and self._starts_alone():
            return
        self._lane([(shape, bucket) for shape, bucket in shapes.items() if shape.gpus == 0])
        if self._room.free or self._room.shared:
            overtaking = self._overtake()
            # One that has just yielded must not start before the one it yielded to, however early it was submitted.
            for tier in range(3):
                asking = [(s, bucket) for s, bucket in shapes.items() if s.gpus and s.tier == tier]
                if not self._gpus(asking, None if tier else overtaking):
                    break
        elif self._policy.backfill != "greedy":
            self._overtake()
            self._reserve_only([(shape, bucket) for shape, bucket in shapes.items() if shape.gpus])

    def _starts_alone(self) -> bool:
        """A job that is alone in line and has room passes nobody: the walks would find the same."""
        [(shape, bucket)] = self._decision.line.shapes.items()
        usage, job = self._decision.usage, bucket[0]
        if len(bucket) > 1 or self._room.shut(shape) or usage.reached(job) or not self._room.fits(shape):
            return False
        if shape.gpus:
            self._try(shape, job, set())
        elif not usage.cpu_lane_full:
            self._start(job, 0)
        return bool(self._decision.starts)

    def _lane(self, buckets: list[tuple[Shape, list[Candidate]]]) -> None:
        """Jobs without GPUs have a lane of their own: they wait for its limit, never for a GPU."""
        usage = self._decision.usage
        for shape, job, drop in walk(buckets):
            if usage.cpu_lane_full:
                return
            if usage.reached(job) or self._room.shut(shape):
                drop()
            else:
                self._start(job, 0)

    def _reserve_only(self, buckets: list[tuple[Shape, list[Candidate]]]) -> None:
        """No GPU is free: nothing starts, but the first job in line that could run still gets its reservation."""
        if self._decision.first is not None:
            return
        for shape, job, drop in walk(buckets):
            if self._reserves(shape, job):
                return
            drop()

    def _overtake(self) -> Candidate | None:
        """Starts the job that overtakes those ahead of it in line, if there is one, or gives it the reservation.
        Returns it."""
        decision, room, policy = self._decision, self._room, self._policy
        if policy.backfill != "easy":
            return None
        job = overdue(decision.line, room, policy, self._now)
        if job is not None and self._starts_or_reserves(job):
            decision.overtaking = job, f"it has waited {int((self._now - job.submitted_at) // 86400)} days"
            return job
        job = whole_machine(decision.line, room, decision.usage, policy, self._now)
        if job is not None and self._starts_or_reserves(job):
            decision.overtaking = job, f"it needs all {job.gpus} GPUs and those before it would leave some idle"
            return job
        return None

    def _starts_or_reserves(self, job: Candidate) -> bool:
        """False when it waits for something else than other jobs' ends."""
        shape = self._decision.line.shape_of(job)
        if self._room.fits(shape) and self._decision.usage.reached(job) is None:
            self._try(shape, job, set())
            return True
        return self._reserves(shape, job)

    def _gpus(self, buckets: list[tuple[Shape, list[Candidate]]], overtaking: Candidate | None) -> bool:
        """Whether others may start as well, if there is room."""
        easy, greedy = self._policy.backfill == "easy", self._policy.backfill == "greedy"
        open_to = {shape for shape, _ in buckets if self._room.fits(shape)}
        for shape, job, drop in walk(buckets, self._eligible):
            if not (self._room.free or self._room.shared):
                if self._decision.first is not None or not easy:
                    return False
                open_to.clear()
            if job is overtaking:
                continue
            if self._decision.usage.reached(job) is not None:
                drop()
            elif shape in open_to:
                open_to -= self._try(shape, job, open_to)
            elif shape.preemptible or self._decision.first is not None or greedy:
                drop()
            elif easy:
                self._reserves(shape, job)
                drop()
            elif self._machine.possible(shape, usable=True):
                self._reserves(shape, job)
                return False
            else:
                drop()
        return True

    def _try(self, shape: Shape, job: Candidate, open_to: set[Shape]) -> set[Shape]:
        """Starts the job if no reservation is pushed; returns the shapes that have lost their room by it."""
        first = self._decision.first
        chosen = self._room.choose(shape, first.devices if first else 0)
        assert chosen is not None
        end = self._now + self._seconds(job)
        if first is not None and end > first.until(job) and not self._spares(first, shape, chosen):
            self._pushes.add(shape)
            return set()
        self._start(job, chosen)
        for at in positions(chosen):
            self._room.hold(at, end, job.gpu_mem_mb)
        return {other for other in open_to if not self._room.fits(other)}

    def _spares(self, first: Reservation, shape: Shape, chosen: int) -> bool:
        if shape in self._pushes:
            return False
        return self._room.still_fits(first.shape, first.soonest, chosen, shape.mem_mb)

    def _eligible(self, shape: Shape, job: Candidate) -> bool:
        """Cheap test for the many: once a shape would push the reservation, only the short enough matter."""
        first = self._decision.first
        return first is None or shape not in self._pushes or self._now + self._seconds(job) <= first.until(job)

    def _reserves(self, shape: Shape, job: Candidate) -> bool:
        """Makes this job the first in line, unless it waits for something else than other jobs' ends."""
        if shape.preemptible or self._decision.usage.reached(job) is not None:
            return False
        soonest, devices = self._room.earliest(shape)
        if soonest == inf:
            return False
        soonest = at = max(soonest, self._now)
        if self._promises is not None and job.time_limit_s is None and self._policy.backfill == "easy":
            at = max(at, self._promises.get(job.id, at + SLACK * (self._now - job.submitted_at)))
        self._decision.first = Reservation(job, shape, soonest, at, devices)
        return True

    def _start(self, job: Candidate, mask: int) -> None:
        self._decision.starts.append((job, mask))
        self._decision.usage.start(job)


def walk(
    buckets: list[tuple[Shape, list[Candidate]]],
    eligible: Callable[[Shape, Candidate], bool] | None = None,
) -> Iterator[tuple[Shape, Candidate, Callable[[], None]]]:
    """Jobs of several shapes, merged in line order, each with a call that drops the rest of its shape.

    Of each shape at most DEPTH jobs are passed over in search of an eligible one.
    """
    heap = [(bucket[0].score, bucket[0].id, number, 0) for number, (_, bucket) in enumerate(buckets) if bucket]
    heapify(heap)
    dropped = False

    def drop() -> None:
        nonlocal dropped
        dropped = True

    while heap:
        _, _, number, at = heappop(heap)
        shape, bucket = buckets[number]
        dropped = False
        if eligible is None or eligible(shape, bucket[at]):
            yield shape, bucket[at], drop
        if dropped:
            continue
        at += 1
        if eligible is not None:
            limit = min(len(bucket), at + DEPTH)
            while at < limit and not eligible(shape, bucket[at]):
                at += 1
            if at == limit and limit < len(bucket):
                continue
        if at < len(bucket):
            heappush(heap, (bucket[at].score, bucket[at].id, number, at))
