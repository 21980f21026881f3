"""Who overtakes jobs that are ahead of it in line: one that has waited for too long, and one that wants the whole
machine while those ahead of it would leave most of it idle.

Both bound what the order by declared time costs the biggest jobs. The line itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpuq.domain.priority import UNDECLARED_S
from gpuq.scheduler.fit import Room
from gpuq.scheduler.limits import Usage
from gpuq.scheduler.order import Line, Shape
from gpuq.scheduler.placement import positions
from gpuq.scheduler.snapshot import Candidate, Policy

# Seconds of waiting after which a job that needs the whole machine overtakes all others of its priority. One that
# needs less finds room between others, and has twice the patience. On 519 teams' real jobs that takes the longest wait
# of the jobs that need 8 of 8 GPUs from 1.20 to 1.12 times that of strict order (on the four teams of the README from
# 1.41 to 1.20), and the mean wait from 0.435 to 0.460 of that of greedy starts.
PATIENCE_S = 13.4 * 86400
# Jobs that leave GPUs idle keep whoever needs all of them waiting, so their declared time counts this many times more
# for every GPU that they leave idle per GPU that they use. On the same 519 teams the longest waits fall from 1.15 to
# 1.12 and the mean from 0.466 to 0.460; weights from 1 to 8 give the same within 0.002.
IDLE_WEIGHT = 2.0
# Nobody is overtaken by a job that stands further behind in line than this for that.
FURTHEST_S = 4 * 86400.0


def overdue(line: Line, room: Room, policy: Policy, now: float) -> Candidate | None:
    """The job that has outwaited its patience by most: none waits for ever behind others that declare less. It
    overtakes those of higher priority only if waiting makes up for it, and then after so much more of it."""
    gpus = max(room.machine.usable.bit_count(), 1)
    late = []
    for job, patience in ((line.oldest(gpus), PATIENCE_S), (line.oldest(), 2 * PATIENCE_S)):
        if job is not None:
            steps, aging = max(job.priority - line.top_priority(), 0), policy.ranking.aging_s
            if not steps or aging is not None:
                late.append((now - job.submitted_at - patience - steps * (aging or 0.0), job))
    by, job = max(late, key=lambda found: found[0], default=(0.0, None))
    return job if by > 0 else None


def whole_machine(line: Line, room: Room, usage: Usage, policy: Policy, now: float) -> Candidate | None:
    """The first job that wants every GPU in service, alone, if it overtakes those ahead of it once what they declare
    is weighed by the GPUs that they leave idle: a machine is not broken up for a job or two when many can share the
    price a little later. Never before higher priority, nor before a job that was moved to the front."""
    gpus = room.machine.usable.bit_count()
    if gpus < 2 or len(room.machine.nodes) > 1:
        return None
    place = min(_heads(line, room, usage, gpus, gpus), default=None)
    if place is None:
        return None
    score, _, whole = place
    ahead = sorted(other for other in _heads(line, room, usage, 1, gpus - 1) if other < place)
    if not ahead or any(job.priority < whole.priority or _moved(job, policy) for _, _, job in ahead):
        return None
    first = ahead[0][2]
    used = _held_at(max(room.earliest(line.shape_of(first))[0], now), room, line.shape_of(whole))
    trial = usage.copy()
    for _, _, job in ahead:
        if used + job.gpus <= gpus and trial.reached(job) is None:
            used += job.gpus
            trial.start(job)
    declared = UNDECLARED_S if first.time_limit_s is None else first.time_limit_s
    further = policy.ranking.factor * declared * IDLE_WEIGHT * (gpus / used - 1)
    return whole if score <= first.score + min(further, FURTHEST_S) else None


def _moved(job: Candidate, policy: Policy) -> bool:
    """Whether somebody put it further to the front than the rule does: by a second and more."""
    return job.score < policy.ranking.score(job.priority, job.submitted_at, job.time_limit_s) - 0.5


def _held_at(time: float, room: Room, alone: Shape) -> int:
    """How many GPUs are still held then, as far as is known, so that a job that wants them alone has no room."""
    return sum(room.fits_at(at, alone) > time for at in positions(room.machine.usable))


def _heads(line: Line, room: Room, usage: Usage, least: int, most: int) -> Iterator[tuple[float, int, Candidate]]:
    """(score, id, job) of the first jobs of every shape with so many GPUs, as many as could run at once; without those
    that wait for something else."""
    for shape, bucket in line.shapes.items():
        if not least <= shape.gpus <= most or shape.preemptible or (least == most and shape.mem_mb is not None):
            continue
        if room.machine.possible(shape, usable=True):
            for job in bucket[: room.machine.usable.bit_count() // shape.gpus]:
                if usage.reached(job) is None:
                    yield job.score, job.id, job
