"""The time limit that a change means: a new one, or so much more or less than there was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpuq.domain.quantities import duration_text
from gpuq.errors import UsageError

# Relative to the limit that there is, in seconds: no field of a submission.
TIME_ADD = "time_add_s"
LIMIT_FIELDS = frozenset({"time_limit_s", TIME_ADD})


def check_time_add(changes: Mapping[str, Any]) -> None:
    """Raises UsageError for a change that is no number, or beside a new limit."""
    if TIME_ADD not in changes:
        return
    add = changes[TIME_ADD]
    if isinstance(add, bool) or not isinstance(add, (int, float)) or not math.isfinite(add):
        raise UsageError(
            f"{TIME_ADD}: a number of seconds is wanted", hint="7200 is two hours more, -1800 half an hour less"
        )
    if "time_limit_s" in changes:
        raise UsageError(f"{TIME_ADD} and time_limit_s cannot go together", hint="give one of them")


def new_limit_s(changes: Mapping[str, Any], before_s: float | None) -> float | None:
    """Seconds, None: no limit. Raises UsageError where nothing would be left, or there is nothing to add to."""
    if TIME_ADD not in changes:
        limit: float | None = changes.get("time_limit_s", before_s)
        return limit
    add = float(changes[TIME_ADD])
    if before_s is None:
        raise UsageError(f"{TIME_ADD}: the job has no time limit to change by so much", hint="give it one: -t 4h")
    if before_s + add <= 0:
        raise UsageError(
            f"{TIME_ADD}: {duration_text(-add)} less leaves nothing of a time limit of {duration_text(before_s)}",
            hint="`gpuq cancel` stops a job",
        )
    return before_s + add


def resolved(changes: Mapping[str, Any], before_s: float | None) -> Mapping[str, Any]:
    """With the limit itself in place of the difference. Raises UsageError."""
    if TIME_ADD not in changes:
        return changes
    rest = {name: value for name, value in changes.items() if name != TIME_ADD}
    return {**rest, "time_limit_s": new_limit_s(changes, before_s)}
