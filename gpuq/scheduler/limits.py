"""What users, groups and arrays already run, against their limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpuq.domain.limits import Bound
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
        self._group_gpus: Counter[str | None] = Counter()
        self._arrays: Counter[int | None] = Counter()
        self.cpu_jobs = 0
        for held in holdings:
            self._count(held.user, held.group, held.array_id, len(held.gpu_uuids))

    def copy(self) -> Usage:
        """To try what would be reached by starting more."""
        other = Usage(self._policy, ())
        other._gpus, other._running = self._gpus.copy(), self._running.copy()
        other._groups, other._arrays = self._groups.copy(), self._arrays.copy()
        other._group_gpus = self._group_gpus.copy()
        other.cpu_jobs = self.cpu_jobs
        return other

    def _count(self, user: str, group: str | None, array_id: int | None, gpus: int) -> None:
        self._gpus[user] += gpus
        self._running[user] += 1
        self._groups[group] += 1
        self._group_gpus[group] += gpus
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
        book = policy.limits
        gpus = book.of_user(job.user, "gpus") or _setting(policy.user_max_gpus)
        if (limit := self._gpus_reached("user", job, job.user, job.user, self._gpus[job.user], gpus)) is not None:
            return limit
        running = book.of_user(job.user, "running") or _setting(policy.user_max_running)
        if (limit := _running("user", job.user, job.user, self._running[job.user], running)) is not None:
            return limit
        if job.group is not None and (limit := self._group_reached(job, job.group)) is not None:
            return limit
        if job.array_limit is not None and 0 < job.array_limit <= self._arrays[job.array_id]:
            array = f"array {job.array_id}"
            return _running("array", job.array_id, array, self._arrays[job.array_id], _setting(job.array_limit))
        return None

    def behind(self, job: Candidate) -> Limit | None:
        """As `reached`; of a job that is over its GPU-hours, too, because all others come before it."""
        found = self.reached(job)
        if found is not None or not job.gpus:
            return found
        policy = self._policy
        if (text := policy.over_users.get(job.user)) is not None:
            return Limit("user", job.user, text)
        text = None if job.group is None else policy.over_groups.get(job.group)
        return None if text is None else Limit("group", job.group, text)

    def _group_reached(self, job: Candidate, group: str) -> Limit | None:
        book, whose = self._policy.limits, f"group {group}"
        gpus = book.of_group(group, "gpus")
        limit = self._gpus_reached("group", job, group, whose, self._group_gpus[group], gpus)
        if limit is not None:
            return limit
        running = book.of_group(group, "running") or _setting(self._policy.group_limits.get(group, 0))
        return _running("group", group, whose, self._groups[group], running)

    @staticmethod
    def _gpus_reached(
        kind: Kind, job: Candidate, name: str, whose: str, held: int, bound: Bound | None
    ) -> Limit | None:
        if bound is None or not job.gpus or not 0 <= bound.most < held + job.gpus:
            return None
        text = f"{whose} holds {held} of at most {bound.most:g} GPUs and asks for {job.gpus}"
        return Limit(kind, name, f"{text} {bound.told}" if bound.of else text)


def _setting(most: int) -> Bound | None:
    """A limit that nobody has set by name; 0 is none."""
    return Bound(most, "", "") if most > 0 else None


def _running(kind: Kind, name: str | int | None, whose: str, running: int, bound: Bound | None) -> Limit | None:
    if bound is None or not 0 <= bound.most <= running:
        return None
    unit = "elements" if kind == "array" else "jobs"
    text = f"{whose} has {running} of at most {bound.most:g} {unit} running"
    return Limit(kind, name, f"{text} {bound.told}" if bound.of else text)
