"""The limits that a submission meets: how many jobs of a user or group may wait, and how long one may ask to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.limits import Bound, LimitBook
from gpuq.domain.priority import Ranking
from gpuq.domain.quantities import plain_duration
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import WAITING
from gpuq.engine.context import IntakeContext
from gpuq.engine.hot.ranking import ranking_of
from gpuq.engine.limit_values import keys_of, limits_of
from gpuq.errors import Refused
from gpuq.ports.records import JobFilter, NewJob, Reader

_NO_LIMITS = LimitBook()


def rules_for(ctx: IntakeContext, tx: Reader, user: str, specs: Iterable[JobSpec]) -> tuple[Ranking, LimitBook]:
    """The rule of the line and the limits of this user and these groups, in one question."""
    groups = {spec.group for spec in specs if spec.group is not None}
    values = tx.some_values([InstallationKey.RANKING, *keys_of(user, groups)])
    rule = ranking_of(ctx, values.pop(InstallationKey.RANKING, None))
    return rule, limits_of(values) if values else _NO_LIMITS


def within_longest(book: LimitBook, user: str, spec: JobSpec) -> JobSpec:
    """The submission, with the longest time limit that it may have if it names none. Raises Refused if it names a
    longer one."""
    longest = _longest(book, user, spec.group)
    if longest is not None and spec.time_limit_s is None:
        return spec.model_copy(update={"time_limit_s": longest.most})
    _require(longest, spec.time_limit_s)
    return spec


def require_allowed_time(book: LimitBook, user: str, group: str | None, time_limit_s: float | None) -> None:
    """Raises Refused for a job of that user and group that would have a longer time limit than it may, or none."""
    _require(_longest(book, user, group), time_limit_s)


def _longest(book: LimitBook, user: str, group: str | None) -> Bound | None:
    bounds = (book.of_user(user, "time_s"), book.of_group(group, "time_s"))
    return min((bound for bound in bounds if bound is not None and bound.most >= 0), key=_most, default=None)


def _require(longest: Bound | None, time_limit_s: float | None) -> None:
    if longest is None or (time_limit_s is not None and time_limit_s <= longest.most):
        return
    asked = "no end" if time_limit_s is None else plain_duration(time_limit_s)
    raise Refused(
        f"time_limit_s: the job asks for {asked}, at most {plain_duration(longest.most)} are allowed {longest.told}",
        hint="ask for less with --time, and go on from a checkpoint; an administrator changes the limit",
    )


def _most(bound: Bound) -> float:
    return bound.most


def check_room(ctx: IntakeContext, tx: Reader, user: str, new: Sequence[NewJob], book: LimitBook) -> None:
    """Raises Refused when with these more jobs would wait than may, of the user or of one of the groups."""
    if not new:
        return
    bound = book.of_user(user, "waiting")
    if bound is None and ctx.settings.user_max_waiting:
        bound = Bound(ctx.settings.user_max_waiting, "", "")
    if bound is not None and bound.most >= 0:
        _require_room(tx.count(JobFilter(states=WAITING, user=user)), len(new), bound, "you have")
    for group, more in _by_group(new, book.groups).items():
        bound = book.of_group(group, "waiting")
        if bound is not None and bound.most >= 0:
            _require_room(tx.count(JobFilter(states=WAITING, group=group)), more, bound, f"group {group} has")


def _by_group(new: Sequence[NewJob], limited: Collection[str]) -> Counter[str]:
    """How many of these belong to each group that has limits."""
    if not limited:
        return Counter()
    return Counter(job.spec.group for job in new if job.spec.group is not None and job.spec.group in limited)


def _require_room(waiting: int, extra: int, bound: Bound, whose: str) -> None:
    if waiting + extra <= bound.most:
        return
    told = f" {bound.told}" if bound.of else ""
    raise Refused(
        f"the queue is full: {whose} as many waiting jobs as it may ({bound.most:g}){told}"
        if waiting >= bound.most
        else f"{extra} more jobs are too many: at most {bound.most:g} may wait{told}, and {whose} {waiting} waiting",
        hint="wait until some have started, or cancel some" if waiting else f"submit at most {bound.most:g} at a time",
    )
