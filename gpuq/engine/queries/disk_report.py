"""What takes the disk of the home, and for how long it lasts: `gpuq report disk`, and a part of `gpuq doctor`.

Sizes of finished jobs are those that maintenance has measured, so that an answer costs one look into the database and
not a walk through a hundred thousand folders. Only jobs that have not ended are walked, and of these no more than
`NAMES` files and folders.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.states import JobState
from gpuq.engine.cleaning import sizes
from gpuq.engine.context import QueryContext
from gpuq.errors import UsageError
from gpuq.file_trees import Budget
from gpuq.ports.job_files import Ended, Share

GROUPINGS = ("user", "group", "job")
COLUMNS = ("jobs", "output_mb", "records_mb", "checkpoints_mb", "total_mb", "freed_in_7d_mb")
AHEAD_S = 7 * 86400.0
NAMES = 20_000
ROWS = 1000
UNENDED = 1000
# Largest users that are named.
_LARGEST = 3
# Over less time the rate at which a disk fills says nothing.
_LEAST_S = 3600.0

Table = tuple[list[str], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Outlook:
    """Bytes of the disk of the home. `full_in_s`: at the rate of the last day; None while it does not fill, or is not
    known. `largest`: (user, bytes)."""

    free: int
    total: int
    full_in_s: float | None
    largest: list[tuple[str, int]]


def disk_report(ctx: QueryContext, by: str) -> Table:
    """A row for each user, group or job, the largest first, then what is nobody's, in parentheses. Raises
    UsageError."""
    if by not in GROUPINGS:
        raise UsageError(f"cannot group the disk by {by!r}", hint="by: " + ", ".join(GROUPINGS))
    rows: list[tuple[Any, ...]] = [
        (
            share.key,
            share.jobs,
            *map(_mib, (share.output, share.records, share.checkpoints)),
            _mib(share.output + share.records + share.checkpoints),
            _mib(share.freed),
        )
        for share in _shares(ctx, by)
    ]
    for name, size in (("(database)", ctx.files.database_bytes()), ("(logs)", _logs(ctx.home))):
        rows.append((name, None, None, None, None, _mib(size), None))
    free, _ = _space(ctx.home)
    rows.append(("(free)", None, None, None, None, _mib(free), None))
    return [by, *COLUMNS], rows


def outlook(ctx: QueryContext) -> Outlook:
    """How much room there is, how long it lasts, and who has most of the rest. Raises OSError."""
    free, total = _space(ctx.home)
    with ctx.records.read() as tx:
        samples = tx.value(InstallationKey.DISK_FREE.of(ctx.node)) or []
    largest = [(share.key, share.output + share.records + share.checkpoints) for share in _shares(ctx, "user")]
    return Outlook(free, total, full_in(samples, ctx.clock.now(), free), largest[:_LARGEST])


def full_in(samples: list[list[float]], now: float, free: int) -> float | None:
    """Seconds until nothing is free, if it goes on as since the oldest sample: [[at, bytes free], …]."""
    if not samples:
        return None
    since, before = samples[0]
    rate = (before - free) / (now - since) if now - since >= _LEAST_S else 0.0
    return free / rate if rate > 0 else None


def _shares(ctx: QueryContext, by: str) -> list[Share]:
    soon = ctx.clock.now() + AHEAD_S
    kept = ctx.settings
    shares = ctx.files.shares(
        by,
        None if kept.keep_output is None else soon - kept.keep_output,
        None if kept.keep_checkpoints is None else soon - kept.keep_checkpoints,
        ROWS,
    )
    found = {share.key: share for share in shares}
    budget = Budget(NAMES)
    for job_id, user, group, attempt in ctx.files.unended(UNENDED):
        if budget.spent:
            break
        size = sizes(ctx.home, Ended(job_id, user, None, JobState.RUNNING, attempt, 0.0, None), budget)
        key = {"user": user, "group": group or "-", "job": str(job_id)}[by]
        old = found.get(key, Share(key, 0, 0, 0, 0, 0))
        more = (size.output or 0, size.records or 0, size.checkpoints or 0)
        output, records, checkpoints = (a + b for a, b in zip(old[2:5], more, strict=True))
        found[key] = Share(key, old.jobs + 1, output, records, checkpoints, old.freed)
    return sorted(found.values(), key=lambda share: (-share.output - share.records - share.checkpoints, share.key))


def _logs(home: Path) -> int:
    """Those of the daemon and of supervisors, rotated ones too."""
    total = 0
    with os.scandir(home) as found:
        for entry in found:
            if entry.name.startswith(("daemon.log", "supervisors.log")) and entry.is_file(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def _space(home: Path) -> tuple[int, int]:
    """(free, total); what is kept back for root is neither, for no job of a user can write to it."""
    found = os.statvfs(home)
    free = found.f_bavail * found.f_frsize
    return free, free + (found.f_blocks - found.f_bfree) * found.f_frsize


def _mib(size: int) -> float:
    return round(size / 2**20, 1)
