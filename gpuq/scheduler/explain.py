"""Why a job does not start now, as data with numbers and names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import inf

from gpuq.domain.quantities import duration_text, plain_duration
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.domain.window import Window
from gpuq.scheduler.decide import Decision, decide, yields_at
from gpuq.scheduler.fit import expected_end
from gpuq.scheduler.order import Shape
from gpuq.scheduler.placement import positions
from gpuq.scheduler.snapshot import Candidate, Holding, Policy, Snapshot

NAMED = 4


class Explainer:
    """One decision for the reasons of many jobs."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self._snapshot = snapshot
        self._now = now
        self._decision = decide(snapshot, now)
        self._jobs = {job.id: job for job in snapshot.waiting}

    def reasons(self, job_id: int) -> list[Reason]:
        """Of one waiting job, the one that decides first. Empty when it is not in the snapshot."""
        job = self._jobs.get(job_id)
        return [] if job is None else reasons(self._decision, self._snapshot, job, self._now)


def explain(snapshot: Snapshot, job_id: int, now: float) -> list[Reason]:
    """The reasons of one waiting job, the one that decides first. Empty when it is not in the snapshot."""
    return Explainer(snapshot, now).reasons(job_id)


def reasons(decision: Decision, snapshot: Snapshot, job: Candidate, now: float) -> list[Reason]:
    """Why `job` has not started, from the decision of the same snapshot; the strongest obstacle alone where one
    decides."""
    shape, machine = decision.line.shape_of(job), decision.room.machine
    if decision.paused:
        return [Reason(ReasonCode.QUEUE_PAUSED, snapshot.paused or "the queue is paused")]
    if any(job.id == started.id for started, _ in decision.starts):
        return [Reason(ReasonCode.STARTING, "its turn has come")]
    if not machine.possible(shape):
        most = max(((machine.allowed(shape) & node).bit_count() for node in machine.nodes), default=0)
        return [Reason(ReasonCode.CONSTRAINT, f"needs {_asked(shape)}; this machine has {most}")]
    reached = decision.usage.reached(job)
    if reached is not None:
        return [Reason(ReasonCode.USER_LIMIT, reached.text)]
    if _kept_for_drain(decision, shape):
        return [Reason(ReasonCode.MAINTENANCE, drain_text(decision, job, now))]
    if job.gpus == 0:
        running, limit = decision.usage.cpu_jobs, snapshot.policy.cpu_jobs
        return [Reason(ReasonCode.RESOURCES, f"{running} of at most {limit} jobs without GPUs are running")]
    if not machine.possible(shape, usable=True):
        return [_out_of_service(decision, shape)]
    return list(_held_back(decision, snapshot, job, shape, now))


def _kept_for_drain(decision: Decision, shape: Shape) -> bool:
    """Whether a planned drain alone leaves too little for it."""
    room, machine = decision.room, decision.room.machine
    if shape.gpus == 0:
        return room.shut(shape)
    closed = room.kept_for_drain(shape)
    left = machine.allowed(shape) & machine.usable & ~closed
    return bool(closed) and not any((left & node).bit_count() >= shape.gpus for node in machine.nodes)


def drain_text(decision: Decision, job: Candidate, now: float) -> str:
    """`the machine is drained at 14:00 UTC for a new driver: the job's limit of 8h does not end before`."""
    closing, devices = decision.room.closing, decision.room.machine.devices
    assert closing is not None
    window = closing.window
    text = window_text(window, [device.index for device in devices if window.covers(device.uuid)], now)
    if window.began(now):
        return text
    if job.time_limit_s is not None:
        return f"{text}: the job's limit of {plain_duration(job.time_limit_s)} does not end before"
    seconds = closing.longest(job)
    if seconds < inf:
        return f"{text}: the job is expected to run for {duration_text(seconds)}, which does not end before"
    return f"{text}: the job declares no --time, and nothing is known of how long such a job runs"


def window_text(window: Window, indices: Sequence[int], now: float) -> str:
    """What is drained and when; `indices`: of the GPUs, if it is not the whole machine."""
    gpus = f"gpu{'s' if len(indices) != 1 else ''} {','.join(map(str, indices))}"
    what = "the machine is" if window.gpus is None else f"{gpus} {'are' if len(indices) != 1 else 'is'}"
    when = "since" if window.at <= now else "at"
    text = f"{what} drained {when} {clock(window.at, now)}"
    if window.until is not None:
        text += f" until {clock(window.until, now)}"
    return text + (f" for {window.reason}" if window.reason else "")


def _held_back(decision: Decision, snapshot: Snapshot, job: Candidate, shape: Shape, now: float) -> Iterator[Reason]:
    first = decision.first
    if shape.over_hours is not None:
        obstacle = "others come first" if decision.room.fits(shape) else _room(decision, snapshot, shape, now)
        yield Reason(ReasonCode.USER_LIMIT, f"{shape.over_hours}: it runs when nobody else wants the GPUs; {obstacle}")
        return
    if first is not None and first.job.id == job.id:
        place = _why_it_overtakes(decision, job) or "first in line"
        yield Reason(ReasonCode.RESOURCES, f"{_room(decision, snapshot, shape, now)}; {place}")
        return
    fits = decision.room.fits(shape)
    if first is not None:
        place = _why_it_overtakes(decision, first.job) or "is first in line"
        when = clock(first.at, now)
        then = f"would start later than {when} if this one started now" if fits else f"starts at about {when}"
        yield Reason(ReasonCode.PRIORITY, f"job {first.job.id} {place} and {then}")
    elif fits:
        yield Reason(ReasonCode.PRIORITY, "jobs before it in line come first")
    if not fits:
        yield Reason(ReasonCode.RESOURCES, _room(decision, snapshot, shape, now))


def _why_it_overtakes(decision: Decision, job: Candidate) -> str:
    """Why it overtakes those ahead of it in line; empty when there is nothing to say."""
    overtaking = decision.overtaking
    return f"comes first ({overtaking[1]})" if overtaking is not None and overtaking[0].id == job.id else ""


def _asked(shape: Shape) -> str:
    text = f"{shape.gpus} GPU{'s' if shape.gpus != 1 else ''}"
    if shape.model is not None:
        text += f" of model {shape.model}"
    if shape.ids is not None:
        text += f" out of {','.join(map(str, shape.ids))}"
    if shape.mem_mb is not None:
        text += f" with {shape.mem_mb} MiB each"
    return text


def _room(decision: Decision, snapshot: Snapshot, shape: Shape, now: float) -> str:
    """`needs 4 GPUs, 2 free; gpu 1 held by job 17 until about 14:20 UTC; …`, the earliest to be free first."""
    room, machine = decision.room, decision.room.machine
    fitting = room.fitting(shape)
    parts = [f"needs {_asked(shape)}, {fitting.bit_count()} free"]
    ends: list[tuple[float, int, str]] = []
    for at in positions(machine.allowed(shape) & ~fitting):
        device = machine.devices[at]
        if device.unavailable is not None:
            ends.append((float("inf"), at, device.unavailable.text))
            continue
        if room.kept_for_drain(shape) >> at & 1 and room.closing is not None:
            window = room.closing.window
            ends.append((room.closing.reopens, at, window_text(replace(window, gpus=()), [device.index], now)))
            continue
        holders = [held for held in snapshot.holdings if device.uuid in held.gpu_uuids]
        starting = [job for job, mask in decision.starts if mask >> at & 1]
        # Preemptible jobs yield to those that are not.
        policy = None if shape.preemptible else snapshot.policy
        ends.append(_holders(device.index, holders, starting, at, now, policy))
    ends.sort()
    parts += [text for _, _, text in ends[:NAMED]]
    if len(ends) > NAMED:
        parts.append(f"and {len(ends) - NAMED} more")
    return "; ".join(parts)


def _holders(
    index: int, holders: list[Holding], starting: list[Candidate], at: int, now: float, policy: Policy | None
) -> tuple[float, int, str]:
    """`policy`: that under which they yield, if they may be asked to."""
    if starting and not holders:
        return now, at, f"gpu {index} goes to job {starting[0].id} now"
    until = max(expected_end(held, now) if policy is None else yields_at(held, policy, now) for held in holders)
    names = ", ".join(str(held.job_id) for held in holders)
    if all(held.stopping for held in holders):
        return until, at, f"gpu {index} held by job {names}, which is being stopped"
    verb = "held by job" if holders[0].mem_mb is None else "shared by jobs" if len(holders) > 1 else "shared by job"
    return until, at, f"gpu {index} {verb} {names} until about {clock(until, now)}{_spent(holders, policy)}"


def _spent(holders: list[Holding], policy: Policy | None) -> str:
    """Why a preemptible job does not yield, where it has done so as often as it may."""
    if policy is None or not policy.preempt_max_per_hour:
        return ""
    spent = [
        f"job {held.job_id} is preemptible, but has yielded {_times(held.preemptions_last_hour)} within the hour"
        for held in holders
        if held.preemptible and held.preemptions_last_hour >= policy.preempt_max_per_hour
    ]
    return f" ({', '.join(spent)}, as often as it may)" if spent else ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _out_of_service(decision: Decision, shape: Shape) -> Reason:
    machine = decision.room.machine
    allowed = machine.allowed(shape)
    why = [machine.devices[at].unavailable for at in positions(allowed & ~machine.usable)]
    known = [reason for reason in why if reason is not None]
    external = [reason for reason in known if reason.code is ReasonCode.EXTERNAL_PROCESS]
    count = (allowed & machine.usable).bit_count()
    texts = [f"needs {_asked(shape)}, {count} in service", *(reason.text for reason in known[:NAMED])]
    return Reason((external or known)[0].code, "; ".join(texts))


def clock(at: float, now: float) -> str:
    """`14:20 UTC`, with the date when it is not within a day."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%H:%M} UTC" if at - now < 86400 else f"{moment:%Y-%m-%d %H:%M} UTC"
