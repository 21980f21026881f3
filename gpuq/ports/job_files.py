"""What jobs have on the disk, as far as it was measured, and what was removed of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from gpuq.domain.states import JobState


class What(StrEnum):
    """Two kinds of what a job leaves behind, kept for different lengths of time."""

    OUTPUT = "output"  # with the folders of its attempts, and their records
    CHECKPOINTS = "checkpoints"


class Sizes(NamedTuple):
    """Bytes of blocks on the disk; None where there is nothing (`output` and `records`: both or none)."""

    output: int | None
    records: int | None
    checkpoints: int | None


class Ended(NamedTuple):
    """A job that has ended for now. `attempt`: the number of its last attempt, 0 for none; `uid`: of its submitter;
    `sizes`: None where it was not measured since that end."""

    id: int
    user: str
    uid: int | None
    state: JobState
    attempt: int
    finished_at: float
    sizes: Sizes | None


class Removed(NamedTuple):
    """That something was removed: when (epoch seconds), and why, for people."""

    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Finished jobs that have something left: all given conditions together. `before`: ended before that time, epoch
    seconds. `checkpoints`: those that have nothing left but checkpoints are meant too."""

    before: float | None = None
    user: str | None = None
    group: str | None = None
    states: frozenset[JobState] | None = None
    ids: tuple[int, ...] | None = None
    checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the jobs of a `Choice`: how many, and bytes; `not_measured` jobs count without bytes, `dead_letters` are not
    in it, for they keep what they have."""

    jobs: int
    output: int
    records: int
    checkpoints: int
    not_measured: int
    dead_letters: int


class Share(NamedTuple):
    """A row of the report: bytes of the jobs of one user, group or job. `freed`: what retention will remove of it by
    the time that was asked for."""

    key: str
    jobs: int
    output: int
    records: int
    checkpoints: int
    freed: int


class JobFiles(Protocol):
    """All times in epoch seconds. Every call may raise DatabaseUnavailable.

    A job counts as ended while it is final and no attempt of it is live.
    """

    def ends_after(self, event_id: int, limit: int) -> tuple[int, list[Ended]]:
        """The jobs that came to an end in the next `limit` events after this one, by id, and the event to go on from
        the next time. Those that are running or waiting again are left out."""

    def note_measured(self, found: Sequence[tuple[Ended, Sizes]]) -> None:
        """One transaction. What was removed stays noted."""

    def note_removed(self, what: What, job_ids: Collection[int], at: float, why: str) -> None:
        """One transaction."""

    def removed(self, job_id: int, what: What) -> Removed | None:
        """The last time that it was."""

    def due(self, what: What, before: float, limit: int, skip: Collection[int] = ()) -> list[Ended]:
        """Measured jobs that ended before then and have `what` left, the oldest first; no dead letters."""

    def chosen(self, choice: Choice, *, after_id: int, limit: int) -> list[Ended]:
        """By id; no dead letters."""

    def not_measured(self, choice: Choice, limit: int) -> list[Ended]:
        """Of the chosen ones, some that nobody has measured."""

    def totals(self, choice: Choice) -> Totals:
        """Over all of the chosen ones."""

    def still_ended(self, job_id: int, finished_at: float) -> bool:
        """Whether nobody has put the job back in line since that end, and it is no dead letter."""

    def shares(self, by: str, output_before: float | None, checkpoints_before: float | None, limit: int) -> list[Share]:
        """The largest first; `by` is user, group or job. What ended before these times will be removed; None: never."""

    def unended(self, limit: int) -> list[tuple[int, str, str | None, int]]:
        """(id, user, group, attempt) of jobs that have had an attempt and have not ended."""

    def forget(self, before: float, limit: int) -> int:
        """Deletes jobs that ended before then with all that the database has of them, in one transaction: those that
        have nothing left on the disk, are no dead letters, and that no other job comes after. Returns how many."""

    def database_bytes(self) -> int:
        """What the database takes on its disk, its log included."""
