"""P4: what was recorded of a run is what the run itself wrote down, and the job's end follows from it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evidence import Line, Run
    from picture import Picture

# Failures that use up a retry, as the documents state them; apart from `lost`, which has a limit of its own.
COUNTED = {"exit_nonzero", "signal", "gpu_oom", "host_oom", "time_limit", "launch_error", "output_limit"}
MAX_LOST = 5
SIGKILL = 9


def wrong_outcomes(picture: Picture, gone_s: float) -> Iterator[tuple[int, str]]:
    for run, row in picture.attempts.items():
        if row["outcome"] is None:
            yield run[0], f"attempt {run[1]} has no outcome"
            continue
        end = picture.end_of(run)
        if end is not None:
            yield from _ended(picture, run, row, end)
        else:
            yield from _cut_short(picture, run, row)
        yield from _over_its_limit(picture, run, gone_s)
    yield from _states(picture)


def _told(row: dict[str, Any]) -> str:
    return f"{row['outcome']}, exit code {row['exit_code']}, signal {row['signal']}"


def as_recorded(intended: int) -> tuple[str, int | None, int | None]:
    if intended < 0:
        return "signal", None, -intended
    return ("succeeded" if intended == 0 else "exit_nonzero"), intended, None


def _ended(picture: Picture, run: Run, row: dict[str, Any], end: Line) -> Iterator[tuple[int, str]]:
    recorded = (row["outcome"], row["exit_code"], row["signal"])
    if recorded == as_recorded(end.intended):
        return
    if not _interrupted(picture, run, row):
        yield run[0], f"attempt {run[1]} wrote that it ends with {end.intended}; recorded: {_told(row)}"


def _interrupted(picture: Picture, run: Run, row: dict[str, Any]) -> bool:
    """Whether something that the script did accounts for the outcome."""
    job, outcome = picture.jobs.get(run[0], {}), row["outcome"]
    if outcome == "lost":
        return run in picture.killed["supervisor"]
    if outcome in {"signal", "host_oom"} and row["signal"] == SIGKILL:
        return run in picture.killed["job"]
    if outcome == "cancelled":
        return bool(picture.requests["cancel"][run[0]])
    if outcome == "time_limit":
        return job.get("time_limit_s") is not None
    return outcome == "preempted" and bool(job.get("preemptible"))


def _cut_short(picture: Picture, run: Run, row: dict[str, Any]) -> Iterator[tuple[int, str]]:
    if picture.start_of(run) is not None:
        if not _interrupted(picture, run, row):
            yield run[0], f"attempt {run[1]} began and wrote no end; recorded: {_told(row)}"
    elif row["outcome"] not in {"lost", "cancelled", "launch_error", "preempted"} and not _interrupted(
        picture, run, row
    ):
        yield run[0], f"attempt {run[1]} never wrote a line; recorded: {_told(row)}"


def _over_its_limit(picture: Picture, run: Run, gone_s: float) -> Iterator[tuple[int, str]]:
    limit = picture.jobs.get(run[0], {}).get("time_limit_s")
    start = picture.start_of(run)
    if limit is None or start is None or run in picture.killed["supervisor"]:
        return
    over = picture.runs[run][-1].at - (start.at + limit)
    if over > gone_s:
        yield run[0], f"attempt {run[1]} wrote {over:.1f} s after its time limit of {limit:g} s"


def _lost_with(picture: Picture, job: int) -> bool:
    """Whether it was to run after another one, as its history says, which had failed or was cancelled by then."""
    ends = [event for event in picture.evidence.events if event["to_state"] in {"failed", "cancelled"}]
    mine = max((event for event in ends if event["job_id"] == job), key=lambda event: event["id"], default=None)
    named = re.match(r"job (\d+) .* only after its success$", (mine or {}).get("detail") or "")
    if mine is None or named is None:
        return False
    return any(event["job_id"] == int(named[1]) and event["id"] < mine["id"] for event in ends)


def _states(picture: Picture) -> Iterator[tuple[int, str]]:
    """The job's final state follows from its attempts, unless it was started anew by hand in between."""
    attempts: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for (job, _), row in sorted(picture.attempts.items()):
        attempts[job].append(row)
    for job, row in picture.jobs.items():
        mine = attempts[job]
        last = mine[-1]["outcome"] if mine else None
        if row["state"] == "completed" and last != "succeeded":
            yield job, f"is completed, and its last attempt is {last}"
        elif row["state"] != "completed" and any(one["outcome"] == "succeeded" for one in mine):
            yield job, f"is {row['state']}, and an attempt of it succeeded"
        elif row["state"] == "cancelled" and not picture.requests["cancel"][job] and not _lost_with(picture, job):
            yield job, "is cancelled, and nobody asked for it"
        elif row["state"] == "failed" and not picture.requests["retry"][job]:
            charged = [one for one in mine if (job, one["number"]) not in picture.given_back]
            counted = sum(one["outcome"] in COUNTED for one in charged)
            lost = sum(one["outcome"] == "lost" for one in charged)
            if counted != row["max_retries"] + 1 and lost < MAX_LOST:
                yield job, f"failed after {counted} failures and {lost} losses; max_retries is {row['max_retries']}"
