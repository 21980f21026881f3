"""Read-only questions to the record of what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any, Protocol


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

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """A statement of gpuq's own on the views: column names and rows. Not for what a person wrote."""

    def open_to_everybody(self) -> bool:
        """Whether the database itself holds `ask` to the views, whoever asks."""

    def ask(self, sql: str, *, limit: int | None = None) -> IO[bytes]:
        """A person's statement: its answer as JSON, `{"columns": [...], "rows": [[...]]}`, in a file that is at its
        start and is the caller's to close. Bounded in time, rows, bytes and memory; `limit`: at most so many rows.

        Raises Refused for what does not read or is not shown, and UsageError for bad SQL, with the database's words,
        and for a question that takes too much."""
