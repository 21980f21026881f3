"""Limits of users and groups, set while the queue runs: durable, told in the audit, obeyed from the next turn on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from gpuq.domain.caller import Caller
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.limits import MAX_WINDOW_S, MIN_WINDOW_S, UNLIMITED, WHAT, Kind, Limits
from gpuq.domain.quantities import plain_duration
from gpuq.domain.times import iso
from gpuq.engine.access import require_admin
from gpuq.engine.context import ActionContext
from gpuq.engine.limit_values import limit_key
from gpuq.errors import UsageError
from gpuq.ports.notify import Topic
from gpuq.ports.records import LimitChange, Writer

# What the limits are called to people: as the options of the command.
OPTIONS = {"gpus": "gpus", "running": "running", "waiting": "waiting", "gpu_hours": "gpu-hours", "time_s": "time"}


def set_limits(ctx: ActionContext, kind: Kind, name: str, wanted: Mapping[str, float | None], caller: Caller) -> Limits:
    """`wanted`: by name of `Limits`, the new value, UNLIMITED, or None to remove it; what is not named stays.
    `window_s` comes with `gpu_hours`. Jobs that run go on. Returns what is set from now on. Raises Forbidden,
    UsageError."""
    require_admin(caller, "limit everybody" if kind == "default" else f"limit a {kind}")
    _check(wanted)
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        before = stored(tx, kind, name)
        after = replace(before, **wanted, by=caller.user, at=iso(now))  # type: ignore[arg-type]
        if after.gpu_hours in {None, UNLIMITED}:
            after = replace(after, window_s=None)
        for what in WHAT:
            told = text_of(before, what), text_of(after, what)
            if told[0] != told[1]:
                tx.add_limit_change(LimitChange(now, caller.user, kind, name, OPTIONS[what], *told))
        _store(tx, kind, name, after, now)
    ctx.notifier.publish(Topic.CONTROL)
    return after


def stored(tx: Writer, kind: Kind, name: str) -> Limits:
    """What is set of this user or group alone."""
    found = Limits.stored(tx.value(limit_key(kind, name)) or {})
    running = tx.value(InstallationKey.GROUP_LIMIT.of(name)) if kind == "group" else None
    return found if running is None else replace(found, running=running["running"])


def text_of(limits: Limits, what: str) -> str | None:
    """As one writes it after the option; None: not set."""
    value = getattr(limits, what)
    if value is None:
        return None
    if value == UNLIMITED:
        return "unlimited"
    if what == "gpu_hours":
        return f"{value:g}/{plain_duration(limits.window_s or 0.0)}"
    return plain_duration(value) if what == "time_s" else f"{value:g}"


def _store(tx: Writer, kind: Kind, name: str, limits: Limits, now: float) -> None:
    if kind == "group":
        # Where the release before looks for it, too; to it a number below 1 would be no limit.
        running = None if limits.running in {None, UNLIMITED} else limits.running
        value = None if running is None else {"running": running, "by": limits.by, "at": limits.at}
        tx.set_value(InstallationKey.GROUP_LIMIT.of(name), value, now)
        limits = replace(limits, running=None)
    tx.set_value(limit_key(kind, name), None if limits.empty else asdict(limits), now)


def _check(wanted: Mapping[str, float | None]) -> None:
    unknown = [name for name in wanted if name not in {*WHAT, "window_s"}]
    if unknown:
        raise UsageError(f"there is no limit {unknown[0]!r}", hint="there are: " + ", ".join(WHAT))
    hours, window = wanted.get("gpu_hours"), wanted.get("window_s")
    if (hours is None or hours == UNLIMITED) != (window is None):
        raise UsageError("gpu_hours and window_s are set together", hint="write --gpu-hours 100/7d")
    if window is not None and not MIN_WINDOW_S <= window <= MAX_WINDOW_S:
        raise UsageError(
            f"window_s: a window of GPU-hours has from 1 hour to {MAX_WINDOW_S / 86400:.0f} days, not {window:g} s",
            hint="write --gpu-hours 100/7d",
        )
