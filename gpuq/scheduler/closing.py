"""A planned drain as a plan sees it: what would not end before it does not start on what it covers.

A job may take as long as its time limit, else as long as is expected of it, and else for ever. What is short enough
starts, so the machine is used up to the moment; what is not has its reservation at the end of the drain, if that is
known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from gpuq.domain.window import Window
from gpuq.scheduler.snapshot import Candidate, Longest, Snapshot


@dataclass(frozen=True, slots=True)
class Closing:
    """The window, seen at `now`."""

    window: Window
    now: float
    longest: Longest

    def ends_in(self, job: Candidate) -> float:
        """Seconds after which the job is over, as far as that is known; inf where it is too long for the window
        already, whatever it says."""
        seconds = self.longest(job)
        return inf if self.window.blocks(self.now, seconds) else seconds

    def blocks(self, ends_in: float | None, start: float) -> bool:
        """Whether a job of that length may not start at `start` on what the window covers."""
        return self.window.blocks(max(start, self.now), inf if ends_in is None else ends_in)

    @property
    def reopens(self) -> float:
        return inf if self.window.until is None else self.window.until


def closing_of(snapshot: Snapshot, now: float) -> Closing | None:
    """None when no drain is planned, or it is over."""
    window = snapshot.window
    if window is None or window.over(now):
        return None
    return Closing(window, now, snapshot.longest or _declared)


def _declared(job: Candidate) -> float:
    return inf if job.time_limit_s is None else job.time_limit_s
