"""Query parameters that several routes share, and their meaning."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query

from gpuq.domain.states import JobState
from gpuq.errors import UsageError

# The largest integer that both databases hold.
MAX_ID = 2**63 - 1
MAX_ROWS = 100_000

JobId = Annotated[int, Path(ge=0, le=MAX_ID, description="the job's id")]
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS, description="at most so many")]
Text = Annotated[str | None, Query(max_length=200, pattern="^[^\\x00]*$")]
Moment = Annotated[str | None, Query(description="ISO 8601 (UTC unless it says otherwise) or epoch seconds")]
Number = Annotated[int | None, Query(ge=0, le=MAX_ID)]


def states(text: str | None) -> frozenset[JobState] | None:
    """From `queued,running`. Raises UsageError."""
    if text is None:
        return None
    try:
        return frozenset(JobState(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"state: {error}", hint="known: " + ", ".join(JobState)) from None


def ids(text: str | None) -> tuple[int, ...] | None:
    """From `7,9,12`. Raises UsageError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) < 20 and int(part) <= MAX_ID):
            raise UsageError(f"ids: {part!r} is not a job id", hint="write 7,9,12")
    return tuple(dict.fromkeys(int(part) for part in parts))


def moment(name: str, text: str | None) -> float | None:
    """Epoch seconds. Raises UsageError."""
    if text is None:
        return None
    try:
        at = float(text)
    except ValueError:
        try:
            # A `+` in a query that was not percent-encoded arrives as a space.
            when = datetime.fromisoformat(text.strip().replace(" +", "+"))
            at = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            at = math.nan
    if not math.isfinite(at):
        raise UsageError(f"{name}: {text!r} is not a time", hint="write 2026-11-22T10:00:00Z or epoch seconds")
    return at
