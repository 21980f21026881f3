"""Judges a finished run against the promises, from the jobs' diary, the answers that clients got, and the rows.

The state machine is the only thing of gpuq's that is believed here; its counters, leases and logs are not asked.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evidence import Evidence, Line, Request, Run
from outcomes import wrong_outcomes
from picture import Picture

from gpuq.domain.states import FINAL, TRANSITIONS, WAITING, JobState

# A cancelled or timed-out run is gone within its grace and this much, seconds.
GONE_S = 5.0
# Recorded times are rounded to the millisecond.
ROUNDING_S = 0.001


@dataclass(frozen=True, slots=True)
class Violation:
    promise: str
    job: int | None
    evidence: str


def check(evidence: Evidence, *, grace_s: float) -> list[Violation]:
    """Every violation found. `grace_s`: of all jobs, seconds between SIGTERM and SIGKILL."""
    picture = Picture(evidence)
    found: list[Violation] = []
    for judge in (lost_submissions, second_runs, gpu_clashes, broken_chains):
        found.extend(judge(picture))
    found.extend(Violation("P4", job, text) for job, text in wrong_outcomes(picture, grace_s + GONE_S))
    found.extend(late_starts(picture, grace_s + GONE_S))
    found.extend(leftovers(picture))
    return found


def lost_submissions(picture: Picture) -> Iterator[Violation]:
    """P1: an answered submission is there, once, and final."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for row in picture.evidence.jobs:
        by_name[row["name"]].append(row["id"])
        if row["state"] not in FINAL:
            yield Violation("P1", row["id"], f"not final after the queue was let drain: {row['state']}")
    for sent in picture.evidence.submissions:
        for job in sent.ids or ():
            row = picture.jobs.get(job)
            if row is None:
                yield Violation("P1", job, f"{sent.name} was answered with this id, and there is no such job")
            elif row["name"] != sent.name and (sent.key is None or row["key"] != sent.key):
                yield Violation("P1", job, f"{sent.name} was answered with this id, which is {row['name']}")
        if len(by_name[sent.name]) > sent.jobs:
            yield Violation("P1", by_name[sent.name][0], f"{sent.name} was stored as jobs {by_name[sent.name]}")
    keys: dict[str, list[int]] = defaultdict(list)
    for row in picture.evidence.jobs:
        if row["key"] is not None and row["state"] == "completed":
            keys[row["key"]].append(row["id"])
    for key, jobs in keys.items():
        if len(jobs) > 1:
            yield Violation("P1", jobs[0], f"jobs {jobs} all completed under the key {key}")


def second_runs(picture: Picture) -> Iterator[Violation]:
    """P2: one live run of a job at most, numbers used once, and none after one that ended well."""
    of_job: dict[int, list[Line]] = defaultdict(list)
    for run, lines in picture.runs.items():
        starts = [line for line in lines if line.kind == "start"]
        of_job[run[0]].extend(starts)
        if len(starts) > 1:
            yield Violation("P2", run[0], f"attempt {run[1]} was started {len(starts)} times: {_pids(starts)}")
        if run not in picture.attempts:
            yield Violation("P2", run[0], f"attempt {run[1]} ran, and there is no record of it")
        for line in lines:
            if line.kind == f"clash:job-{run[0]}":
                yield Violation("P2", run[0], f"attempt {run[1]} began at {line.at:.3f} while an earlier run lived")
    for job, starts in of_job.items():
        starts.sort(key=lambda line: line.at)
        for one, following in itertools.pairwise(starts):
            if following.attempt < one.attempt:
                yield Violation("P2", job, f"attempt {following.attempt} began after attempt {one.attempt}")
            yield from _not_needed(picture, one, following)
    for job, row in picture.jobs.items():
        numbers = [number for owner, number in picture.attempts if owner == job]
        if sorted(numbers) != list(range(1, row["attempt"] + 1)):
            yield Violation("P2", job, f"attempts {sorted(numbers)}, and the job counts {row['attempt']}")


def _not_needed(picture: Picture, one: Line, following: Line) -> Iterator[Violation]:
    """A run that ended well is followed by another only if its end could not be known or was a stop's."""
    end = picture.end_of(one.run)
    if end is None or end.intended != 0 or one.run in picture.killed["supervisor"] | picture.killed["job"]:
        return
    outcome = picture.attempts.get(one.run, {}).get("outcome")
    # A stop may reach a job between its last line and its exit; `wrong_outcomes` judges whether there was one.
    if outcome in {"preempted", "time_limit", "cancelled"} or picture.retried_between(one.job, end.at, following.at):
        return
    yield Violation("P2", one.job, f"attempt {one.attempt} ended with 0 at {end.at:.3f}, and ran again ({outcome})")


def gpu_clashes(picture: Picture) -> Iterator[Violation]:
    """P3: by the locks that runs hold, and by the times that they and the records give."""
    spans: dict[int, list[tuple[float, float, Run]]] = defaultdict(list)
    for run, lines in picture.runs.items():
        for line in lines:
            if line.kind.startswith("clash:") and not line.kind.startswith("clash:job-"):
                found = line.kind.removeprefix("clash:")
                text = f"held by an earlier run: {found}" if found.startswith("gpu-") else f"wrong: {found}"
                yield Violation("P3", run[0], f"attempt {run[1]} at {line.at:.3f}: {text}")
        start = picture.start_of(run)
        row = picture.attempts.get(run)
        if start is None or row is None:
            continue
        if sorted(start.gpus) != sorted(_indices(row)):
            yield Violation("P3", run[0], f"attempt {run[1]} saw GPUs {start.gpus}, recorded {row['gpu_indices']}")
        asked = picture.jobs[run[0]]["gpus"] if run[0] in picture.jobs else len(start.gpus)
        if len(start.gpus) != asked:
            yield Violation("P3", run[0], f"attempt {run[1]} saw {len(start.gpus)} GPUs of {asked}")
        last = max([line.at for line in lines] + [(row["finished_at"] or start.at) - ROUNDING_S])
        for gpu in start.gpus:
            spans[gpu].append((start.at, last, run))
    for gpu, held in spans.items():
        held.sort()
        # Compared with the longest so far, so that a short one inside a long one hides nothing.
        _, until, holder = held[0] if held else (0.0, 0.0, (0, 0))
        for begin, last, run in held[1:]:
            if begin < until:
                text = f"attempt {run[1]} began on GPU {gpu} at {begin:.3f}, job {holder[0]} had it until {until:.3f}"
                yield Violation("P3", run[0], text)
            if last > until:
                until, holder = last, run


def broken_chains(picture: Picture) -> Iterator[Violation]:
    """P6: the events of a job are an unbroken, legal way from its submission to its state."""
    events: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in picture.evidence.events:
        events[event["job_id"]].append(event)
    for job, row in picture.jobs.items():
        state: JobState | None = None
        for event in events[job]:
            came, to = event["from_state"], JobState(event["to_state"])
            if came != state:
                yield Violation("P6", job, f"event {event['id']} comes from {came}, the one before went to {state}")
            elif state is None and to not in WAITING:
                yield Violation("P6", job, f"its first event goes to {to}")
            elif state is not None and to != state and to not in TRANSITIONS[state]:
                yield Violation("P6", job, f"event {event['id']} goes from {state} to {to}")
            state = to
        if state != row["state"]:
            yield Violation("P6", job, f"its events end in {state}, and it is {row['state']}")


def late_starts(picture: Picture, gone_s: float) -> Iterator[Violation]:
    """P7: nothing of a job starts, or is still there after its time, once its cancel was answered."""
    for job, cancels in picture.requests["cancel"].items():
        answered = [cancel for cancel in cancels if cancel.answered is not None]
        lines = [line for run, found in picture.runs.items() if run[0] == job for line in found]
        for cancel in answered:
            assert cancel.answered is not None
            for line in lines:
                if line.at <= cancel.answered or picture.retried_between(job, cancel.asked, line.at):
                    continue
                if line.kind == "start" and not _was_on_its_way(picture, line, cancel):
                    text = f"attempt {line.attempt} began {line.at - cancel.answered:.3f} s after the cancel"
                    yield Violation("P7", job, f"{text} was answered with {cancel.state}")
                elif line.at > cancel.answered + gone_s and line.run not in picture.killed["supervisor"]:
                    text = f"attempt {line.attempt} still wrote {line.kind!r} {line.at - cancel.answered:.1f} s"
                    yield Violation("P7", job, f"{text} after its cancel was answered")
                    break


def _was_on_its_way(picture: Picture, start: Line, cancel: Request) -> bool:
    """The process was being made when the cancel came: it is told to stop at once, and may get as far as a line."""
    claimed = picture.attempts.get(start.run, {}).get("claimed_at")
    return cancel.state == "stopping" and claimed is not None and claimed <= (cancel.answered or 0.0)


def leftovers(picture: Picture) -> Iterator[Violation]:
    for text in picture.evidence.left_leases:
        yield Violation("P3", None, f"lease left over: {text}")
    for text in picture.evidence.left_processes:
        yield Violation("P7", None, f"process left over: {text}")
    for promise, text in picture.evidence.complaints:
        yield Violation(promise, None, text)


def _indices(attempt: dict[str, Any]) -> list[int]:
    text = attempt["gpu_indices"].strip("[]")
    return [int(part) for part in text.split(",")] if text else []


def _pids(lines: list[Line]) -> str:
    return ", ".join(f"pid {line.pid} at {line.at:.3f}" for line in lines)
