"""The plan: who starts where, who yields, and why the others wait. Pure: same snapshot, same plan."""

from __future__ import annotations

from gpuq.domain.reasons import Reason
from gpuq.scheduler.decide import Decision, decide, walk
from gpuq.scheduler.explain import reasons
from gpuq.scheduler.order import Shape
from gpuq.scheduler.placement import positions
from gpuq.scheduler.preempt import victims
from gpuq.scheduler.snapshot import Action, Snapshot, Start, Wait

# Reasons cost more than decisions; a listing shows this many jobs.
WAITS = 50


def plan(snapshot: Snapshot, now: float, *, waits: int | None = WAITS) -> list[Action]:
    """Starts in line order, then preemptions, then for the first `waits` jobs that stay (None: all) why they do; the
    holder of the reservation is always among them."""
    decision = decide(snapshot, now)
    actions: list[Action] = [Start(job.id, uuids(decision, mask)) for job, mask in decision.starts]
    actions += victims(decision, snapshot, now)
    if decision.first is not None:
        job = decision.first.job
        actions.append(Wait(job.id, reasons(decision, snapshot, job, now)[0], decision.first.at))
    if waits != 0:
        actions += _waits(decision, snapshot, now, waits)
    return actions


def uuids(decision: Decision, mask: int) -> tuple[str, ...]:
    """The UUIDs of the GPUs in a mask, by index."""
    devices = [decision.room.machine.devices[at] for at in positions(mask)]
    return tuple(device.uuid for device in sorted(devices, key=lambda device: device.index))


def _waits(decision: Decision, snapshot: Snapshot, now: float, most: int | None) -> list[Wait]:
    told = {job.id for job, _ in decision.starts}
    if decision.first is not None:
        told.add(decision.first.job.id)
    found: list[Wait] = []
    # Jobs of one shape wait for the same: the limits that differ between users are part of it.
    known: dict[Shape, Reason] = {}
    for shape, job, _ in walk(list(decision.line.shapes.items())):
        if most is not None and len(found) >= most:
            break
        if job.id in told:
            continue
        reason = known.get(shape)
        if reason is None:
            reason = known[shape] = reasons(decision, snapshot, job, now)[0]
        found.append(Wait(job.id, reason))
    return found
