"""What users, groups and arrays already run, against their limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpuq.scheduler.snapshot import Candidate, Holding, Policy

Kind = Literal["user", "group", "array", "account"]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that is reached: of which user, group or array (`name`), and a sentence about it. Whose account is not
    there may start nothing: `name` is the user and the uid."""

    kind: Kind
    name: str | int | tuple[str, int | None] | None
    text: str


class Usage:
    """How much each user, group and array has running, held against the policy's limits."""

    def __init__(self, policy: Policy, holdings: Iterable[Holding]) -> None:
        self._policy = policy
        self._gpus: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._groups: Counter[str | None] = Counter()
        self._arrays: Counter[int | None] = Counter()
        self.cpu_jobs = 0
        for held in holdings:
            self._count(held.user, held.group, held.array_id, len(held.gpu_uuids))

    def copy(self) -> Usage:
        """To try what would be reached by starting more."""
        other = Usage(self._policy, ())
        other._gpus, other._running = self._gpus.copy(), self._running.copy()
        other._groups, other._arrays = self._groups.copy(), self._arrays.copy()
        other.cpu_jobs = self.cpu_jobs
        return other

    def _count(self, user: str, group: str | None, array_id: int | None, gpus: int) -> None:
        self._gpus[user] += gpus
        self._running[user] += 1
        self._groups[group] += 1
        self._arrays[array_id] += 1
        self.cpu_jobs += gpus == 0

    def start(self, job: Candidate) -> None:
        self._count(job.user, job.group, job.array_id, job.gpus)

    @property
    def cpu_lane_full(self) -> bool:
        return 0 < self._policy.cpu_jobs <= self.cpu_jobs

    def reached(self, job: Candidate) -> Limit | None:
        """The limit that keeps this job back now; None when there is none."""
        policy = self._policy
        if policy.no_account and (why := policy.no_account.get((job.user, job.uid))) is not None:
            return Limit("account", (job.user, job.uid), why)
        if 0 < policy.user_max_gpus < self._gpus[job.user] + job.gpus and job.gpus:
            held, most = self._gpus[job.user], policy.user_max_gpus
            return Limit("user", job.user, f"{job.user} holds {held} of at most {most} GPUs and asks for {job.gpus}")
        if 0 < policy.user_max_running <= self._running[job.user]:
            return _running("user", job.user, job.user, self._running[job.user], policy.user_max_running)
        group_limit = policy.group_limits.get(job.group, 0) if job.group is not None else 0
        if 0 < group_limit <= self._groups[job.group]:
            return _running("group", job.group, f"group {job.group}", self._groups[job.group], group_limit)
        if job.array_limit is not None and 0 < job.array_limit <= self._arrays[job.array_id]:
            array = f"array {job.array_id}"
            return _running("array", job.array_id, array, self._arrays[job.array_id], job.array_limit)
        return None


def _running(kind: Kind, name: str | int | None, whose: str, running: int, most: int) -> Limit:
    unit = "elements" if kind == "array" else "jobs"
    return Limit(kind, name, f"{whose} has {running} of at most {most} {unit} running")
