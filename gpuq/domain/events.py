"""One line of a job's history: who moved it, when, from where, to where, and why."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import TypedDict

from gpuq.domain.states import JobState
from gpuq.domain.times import iso


class EventView(TypedDict):
    """The JSON of an event. `at`: ISO 8601 in UTC."""

    id: int
    at: str | None
    job_id: int
    attempt: int | None
    from_state: JobState | None
    to_state: JobState
    actor: str
    detail: str | None


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

    def to_json(self) -> EventView:
        """The JSON of this event."""
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
