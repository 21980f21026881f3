"""Query parameters that several routes share, and their meaning."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Header, Path, Query

from gpuq.domain.states import FINAL, JobState
from gpuq.domain.times import LATEST
from gpuq.errors import UsageError

# The largest integer that both databases hold.
MAX_ID = 2**63 - 1
MAX_ROWS = 100_000


def _listed(one: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^ *({one})? *(, *({one})? *)*$"}


def _event(one: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({one})?$"}


JobId = Annotated[int, Path(ge=0, le=MAX_ID, description="the job's id")]
Limit = Annotated[int, Query(ge=1, le=MAX_ROWS, description="at most so many")]
Text = Annotated[str | None, Query(max_length=200, pattern="^[^\\x00]*$")]
# Checked below, where what to write can be told; the document has them for those who read that.
Moment = Annotated[
    str | None,
    Query(
        description="ISO 8601 (UTC unless it says otherwise) or epoch seconds",
        json_schema_extra={"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}, {"type": "null"}]},
    ),
]
_STATES = "|".join(JobState)
States = Annotated[
    str | None,
    Query(
        description="one or more states, commas between",
        json_schema_extra={"anyOf": [_listed(_STATES), {"type": "null"}]},
    ),
]
FinalStates = Annotated[
    str | None,
    Query(
        description="one or more final states, commas between",
        json_schema_extra={"anyOf": [_listed("|".join(sorted(FINAL))), {"type": "null"}]},
    ),
]
Ids = Annotated[
    str | None,
    Query(description="ids, commas between", json_schema_extra={"anyOf": [_listed("[0-9]{1,18}"), {"type": "null"}]}),
]
Number = Annotated[int | None, Query(ge=0, le=MAX_ID)]
EventId = Annotated[
    str | None,
    Header(description="the last event's", json_schema_extra={"anyOf": [_event("[0-9]{1,18}"), {"type": "null"}]}),
]
LogEventId = Annotated[
    str | None,
    Header(
        description="the last event's: `attempt:offset`, or an offset",
        json_schema_extra={"anyOf": [_event("([0-9]{1,18}:)?[0-9]{1,18}"), {"type": "null"}]},
    ),
]


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
    """Epoch seconds, from the first to the last that a calendar has. Raises UsageError."""
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
    return min(max(at, 0.0), float(LATEST))
