"""What `gpuq limit` shows: each limit that counts, what is used of it now, and where it was set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from typing_extensions import TypedDict

from gpuq.domain.job import Attempt, Job
from gpuq.domain.limits import WHAT, Bound
from gpuq.domain.states import ACTIVE, WAITING
from gpuq.engine.context import QueryContext
from gpuq.engine.limit_values import read_limits
from gpuq.engine.snapshot.gpu_hours import sums
from gpuq.engine.switches import group_limits
from gpuq.ports.records import JobFilter, Reader


class LimitView(TypedDict):
    """The JSON of a limit. `limit`: GPUs, jobs, GPU-hours or seconds; null: it is lifted. `used`: the same now, null
    where nothing is counted. `source`: `sql`, or `setting`; `set_for`: whose row or which setting it is."""

    kind: str
    name: str
    what: str
    limit: float | None
    window_s: float | None
    used: float | None
    source: str
    set_for: str
    set_by: str | None


@dataclass(slots=True)
class _Used:
    """Of everybody, by kind (`user`, `group`) and name."""

    gpus: dict[tuple[str, str], int] = field(default_factory=dict)
    running: dict[tuple[str, str], int] = field(default_factory=dict)
    live: list[tuple[Job, Attempt]] = field(default_factory=list)
    # By window in seconds; read once, whoever is asked about.
    ended: dict[float, Mapping[tuple[str, str | None], float]] = field(default_factory=dict)


def report(
    ctx: QueryContext, users: Collection[str], *, user: str | None = None, group: str | None = None
) -> list[LimitView]:
    """The limits of everybody that are set, and those that count for `users`; of this `user` and `group` alone, if one
    is named. Everybody may see them, as everybody sees the queue."""
    with ctx.records.read() as tx:
        book = read_limits(tx, group_limits(tx))
        used = _used(tx)
        rows: list[LimitView] = []
        if user is None and group is None:
            rows += _rows(ctx, tx, used, "default", "", [_default(ctx, book.of_user("", what), what) for what in WHAT])
        if user is not None or group is None:
            for name in [user] if user is not None else sorted({*book.users, *users}):
                bounds = [_default(ctx, book.of_user(name, what), what) for what in WHAT]
                rows += _rows(ctx, tx, used, "user", name, bounds)
        if group is not None or user is None:
            for name in [group] if group is not None else sorted(book.groups):
                bounds = [book.of_group(name, what) for what in WHAT]
                rows += _rows(ctx, tx, used, "group", name, bounds)
    return rows


def _default(ctx: QueryContext, bound: Bound | None, what: str) -> Bound | None:
    """What is set, else the setting where that is a limit."""
    if bound is not None or what not in {"gpus", "running", "waiting"}:
        return bound
    most = getattr(ctx.settings, f"user_max_{what}")
    return Bound(most, "", f"GPUQ_USER_MAX_{what.upper()}") if most else None


def _used(tx: Reader) -> _Used:
    used = _Used(live=tx.live_attempts())
    for job, attempt in used.live:
        for owner in (("user", job.user), ("group", job.group)):
            if owner[1] is not None:
                key = (owner[0], owner[1])
                used.gpus[key] = used.gpus.get(key, 0) + len(attempt.gpu_uuids)
                used.running[key] = used.running.get(key, 0) + (job.state in ACTIVE)
    return used


def _rows(
    ctx: QueryContext, tx: Reader, used: _Used, kind: str, name: str, bounds: list[Bound | None]
) -> Iterator[LimitView]:
    for what, bound in zip(WHAT, bounds, strict=True):
        if bound is None:
            continue
        yield {
            "kind": kind,
            "name": name,
            "what": what,
            "limit": None if bound.most < 0 else bound.most,
            "window_s": bound.window_s if what == "gpu_hours" and bound.most >= 0 else None,
            "used": None if kind == "default" else _now(ctx, tx, used, (kind, name), what, bound),
            "source": "sql" if bound.of else "setting",
            "set_for": bound.of or bound.by,
            "set_by": bound.by if bound.of else None,
        }


def _now(ctx: QueryContext, tx: Reader, used: _Used, owner: tuple[str, str], what: str, bound: Bound) -> float | None:
    kind, name = owner
    if what in {"gpus", "running"}:
        return getattr(used, what).get(owner, 0)  # type: ignore[no-any-return]
    if what == "waiting":
        where = JobFilter(states=WAITING, user=name) if kind == "user" else JobFilter(states=WAITING, group=name)
        return tx.count(where)
    return _hours(ctx, tx, used, owner, bound.window_s) if what == "gpu_hours" and bound.window_s else None


def _hours(ctx: QueryContext, tx: Reader, used: _Used, owner: tuple[str, str], window_s: float) -> float:
    now, place = ctx.clock.now(), 0 if owner[0] == "user" else 1
    if window_s not in used.ended:
        used.ended |= sums(tx, [window_s], now)
    ended = sum(seconds for who, seconds in used.ended[window_s].items() if who[place] == owner[1])
    running = sum(
        min(max(0.0, now - (attempt.started_at or attempt.claimed_at)), window_s) * len(attempt.gpu_uuids)
        for job, attempt in used.live
        if (job.user, job.group)[place] == owner[1]
    )
    return round((ended + running) / 3600.0, 3)
