"""The exit code that a job's end gives to `run`, `wait`, `submit --wait` and `logs -f`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TIME_LIMIT = 124
NEVER_RAN = 125


def of_job(job: Mapping[str, Any]) -> int:
    """The job's own code; 128+N for a signal, 124 time limit, 125 cancelled or never run, 1 for a job whose end
    nobody saw."""
    if job["state"] == "completed":
        return 0
    if job["outcome"] == "time_limit":
        return TIME_LIMIT
    if job["state"] == "cancelled" or job["outcome"] in {"cancelled", "launch_error"}:
        return NEVER_RAN
    if job["signal"]:
        return 128 + int(job["signal"])
    return int(job["exit_code"] or 1)
