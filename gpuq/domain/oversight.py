"""What is done about a supervisor that does not do its work: pure, from what was seen of it.

A supervisor ends its job by itself, so nobody looks at it as long as nothing is due. Once a stop is, it is asked
whether it listens, and what stands still is continued. One that does not listen all the same is replaced: its attempt
is taken over, which is durable, and the stop goes on without it. All times are on a clock that nobody sets.

| what was seen                                        | a stop is due       | none is        |
|------------------------------------------------------|---------------------|----------------|
| the attempt is taken over already                    | take over (go on)   | take over      |
| no such process any more, or a zombie                | wait: the lock says | wait           |
| SIGKILL was due 2 s ago                              | take over           | -              |
| it stands still, or has not listened for 2 s         | continue            | continue       |
| the same, continued three times                      | take over           | continue       |
| the same, and its job's main process has ended       | take over           | take over      |
| it runs, its job's main process ended a minute ago   | as it listens       | take over      |
| it runs and listens                                  | wait                | wait           |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# With 5 s from the SIGKILL that is due to the promised end of all (see MARGIN_S in stopping.py), this leaves 3.
KILL_LATE_S = 2.0
# How long a nudge may lie unread. A supervisor that ends a thousand processes has no time for it.
SILENT_S = 2.0
TRIES = 3
# From the end of the main process to its being reaped it takes milliseconds.
UNREAPED_S = 60.0


class SupervisorState(StrEnum):
    """`GONE`: no such process, or a zombie. `UNSEEN`: the lock is held and no process is found that holds it."""

    RUNS = "runs"
    STANDS_STILL = "stands still"
    GONE = "gone"
    UNSEEN = "unseen"


class Step(StrEnum):
    """What to do now."""

    WAIT = "wait"
    CONTINUE = "continue"
    TAKE_OVER = "take over"


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at the supervisor of an attempt. `pid` and `start` (clock ticks since boot): None for one that was not
    found. `unread`: an earlier nudge has not been read. `main_ended`: the job's main process is a zombie. `taken_over`:
    somebody has taken the attempt over."""

    state: SupervisorState
    pid: int | None = None
    start: int | None = None
    unread: bool = False
    main_ended: bool = False
    taken_over: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """What lives below a supervisor. `processes`: PID and start time of all but the job's main process, as many as a
    look counts. `grouped`: a control group holds them, so that they need not be known."""

    processes: list[tuple[int, int]]
    grouped: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """`kill_late_s`: seconds since SIGKILL was due, negative before it; None when no stop is. `unread_s`, `unreaped_s`:
    for how long at least that is so; None: it is not. `continued`: how often it was, since it was last seen well."""

    sight: Sight
    kill_late_s: float | None = None
    unread_s: float | None = None
    unreaped_s: float | None = None
    continued: int = 0


def decide(seen: Evidence) -> Step:
    """The table above."""
    state = seen.sight.state
    if seen.sight.taken_over:
        return Step.TAKE_OVER
    if state is SupervisorState.GONE:
        return Step.WAIT
    if seen.kill_late_s is not None and seen.kill_late_s >= KILL_LATE_S:
        return Step.TAKE_OVER
    still = state is SupervisorState.STANDS_STILL
    silent = seen.kill_late_s is not None and seen.unread_s is not None and seen.unread_s >= SILENT_S
    if still or silent:
        given_up = seen.continued >= TRIES and (seen.kill_late_s is not None or seen.sight.main_ended)
        return Step.TAKE_OVER if given_up else Step.CONTINUE
    if seen.kill_late_s is None and seen.unreaped_s is not None and seen.unreaped_s >= UNREAPED_S:
        return Step.TAKE_OVER
    return Step.WAIT
