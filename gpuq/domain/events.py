"""One line of a job's history: who moved it, when, from where, to where, and why."""

from __future__ import annotations

from dataclasses import dataclass

from gpuq.domain.states import JobState
from gpuq.domain.times import iso


@dataclass(frozen=True, slots=True)
class Event:
    """`at` in epoch seconds; `attempt` is None when no attempt is concerned."""

    id: int
    at: float
    job_id: int
    attempt: int | None
    from_state: JobState | None
    to_state: JobState
    actor: str
    detail: str | None

    def to_json(self) -> dict[str, object]:
        """The event as answers show it, with the moment as ISO 8601 text."""
        return {
            "id": self.id,
            "at": iso(self.at),
            "job_id": self.job_id,
            "attempt": self.attempt,
            "from_state": self.from_state,
            "to_state": self.to_state,
            "actor": self.actor,
            "detail": self.detail,
        }
