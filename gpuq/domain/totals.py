"""How many there are and have been: numbers that are kept and never counted, so they cost the same after a million
jobs as after ten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpuq.domain.states import JobState

# Upper bounds of the histogram of waits, seconds. They stand in the database's triggers: a change needs a migration.
WAIT_BOUNDS: tuple[int, ...] = (1, 5, 15, 60, 300, 900, 3600, 10800, 28800, 86400, 259200)
MORE = "more"


@dataclass(frozen=True, slots=True)
class Totals:
    """`jobs` and `dead_letters`: now. `attempts` by outcome, and the waits from submission to first start: ever, also
    of jobs whose record is gone. `wait_counts[i]` waits took at most `WAIT_BOUNDS[i]` seconds."""

    jobs: Mapping[JobState, int]
    dead_letters: int
    attempts: Mapping[str, int]
    wait_counts: tuple[int, ...]
    waits: int
    wait_s: float
