"""Read-only questions to the record of what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One ended attempt that ran: what run-time expectation learns from. Seconds."""

    job_id: int
    user: str
    gpus: int
    command: tuple[str, ...]
    time_limit_s: float | None
    outcome: str
    run_s: float
    finished_at: float


class History(Protocol):
    """Questions to what has happened; nothing is changed."""

    def finished_runs(self, *, limit: int, since: float = 0.0) -> list[FinishedRun]:
        """The newest `limit` attempts that ended after `since` (epoch seconds), oldest first."""

    def query(self, sql: str, *, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """A read-only statement: column names and rows. Raises Refused for anything that writes and
        UsageError, with the database's words, for bad SQL."""
