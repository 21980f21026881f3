"""Who has used up the GPU-hours of a window: his jobs run as preemptible ones, and behind all others.

Idle GPUs are used and nobody is locked out, but whoever is within the limit comes first and is made room for. A share
of a GPU counts as the whole of it, as in `gpuq report usage`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from gpuq.domain.limits import Bound, LimitBook
from gpuq.domain.quantities import plain_duration
from gpuq.scheduler.snapshot import Candidate, Holding

# GPU-seconds of a user or a group (`user`, `group`; the name; the window in seconds), running attempts included.
Used = Callable[[str, str, float], float]


@dataclass(frozen=True, slots=True)
class Over:
    """By name, the sentence about those who are over their GPU-hours."""

    users: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

    def of(self, user: str, group: str | None) -> str | None:
        """Why a job of theirs comes behind all others; None: it does not."""
        found = self.users.get(user)
        return found if found is not None or group is None else self.groups.get(group)


NOBODY = Over()


def over_hours(book: LimitBook, used: Used, owners: Collection[tuple[str, str | None]]) -> Over:
    """Who of these (user, group) has used as much as the limits allow."""
    users, groups = {user for user, _ in owners}, {group for _, group in owners if group is not None}
    told = (
        {name: text for name in users if (text := _text(name, "user", name, book.of_user(name, "gpu_hours"), used))},
        {
            name: text
            for name in groups
            if (text := _text(f"group {name}", "group", name, book.of_group(name, "gpu_hours"), used))
        },
    )
    return Over(*told) if any(told) else NOBODY


def _text(whose: str, kind: str, name: str, bound: Bound | None, used: Used) -> str | None:
    if bound is None or bound.most < 0:
        return None
    hours = used(kind, name, bound.window_s) / 3600.0
    if hours < bound.most:
        return None
    window = plain_duration(bound.window_s)
    return f"{whose} has used {hours:.1f} of {bound.most:g} GPU-hours within {window} {bound.told}"


def behind_others(job: Candidate, over: Over) -> Candidate:
    """The candidate as the plan treats it."""
    text = over.of(job.user, job.group) if job.gpus else None
    return job if text is None else replace(job, preemptible=True, over_hours=text)


def yielding(held: Holding, over: Over) -> Holding:
    """The running job as the plan treats it."""
    if not held.gpu_uuids or over.of(held.user, held.group) is None:
        return held
    return replace(held, preemptible=True, over_hours=True)
