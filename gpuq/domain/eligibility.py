"""From when on a job may start, and in which state it waits until then."""

from __future__ import annotations

from datetime import UTC, datetime

from gpuq.domain.states import JobState
from gpuq.errors import UsageError

# 2100-01-01T00:00:00Z.
LATEST_BEGIN = 4_102_444_800


def begin_time(begin: float | str | None) -> float | None:
    """Epoch seconds. Raises UsageError for text that is not ISO 8601, and for what no calendar has."""
    if begin is None:
        return None
    at = begin if isinstance(begin, (int, float)) else _parsed(begin)
    if not 0 <= at <= LATEST_BEGIN:
        raise UsageError(f"begin: {begin} is out of range", hint="a job can wait until the year 2100")
    return at


def _parsed(begin: str) -> float:
    try:
        moment = datetime.fromisoformat(begin)
    except ValueError:
        raise UsageError(
            f"begin: {begin!r} is not a time", hint="write 2026-11-22T10:00:00Z or epoch seconds"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def waiting_state(open_dependencies: bool, begin: float | None, now: float) -> JobState:
    """Where a job waits that nobody holds."""
    if open_dependencies:
        return JobState.BLOCKED
    return JobState.DELAYED if begin is not None and begin > now else JobState.QUEUED
