"""What jobs wrote down themselves, and whether that and the final rows in SQL keep the promises.

The jobs also lock a file per GPU and one per job for as long as any process of them lives, so a double give and a
second live run are seen by the jobs themselves, at the moment they happen.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINAL = {"completed", "failed", "cancelled"}

# `body` runs between the two lines. Whatever it starts inherits the locks.
_SCRIPT = """
cd {folder}
say() {{ echo "$1 $GPUQ_JOB_ID $GPUQ_ATTEMPT $2 $(date +%s%N)" >> diary; }}
for name in job-$GPUQ_JOB_ID $(for gpu in ${{GPUQ_GPUS//,/ }}; do echo gpu-$gpu; done); do
  exec {{fd}}>>$name
  flock -n $fd || say overlap $name
done
say start "${{GPUQ_GPUS:--}}"
{body}
say end {code}
exit {code}
"""


@dataclass
class Diary:
    """`cancelled`: job id → when its cancel was answered, epoch nanoseconds."""

    folder: Path
    answered: list[int] = field(default_factory=list)
    cancelled: dict[int, int] = field(default_factory=dict)

    def script(self, body: str = "", code: int = 0) -> list[str]:
        """A command that keeps this diary."""
        return ["bash", "-c", _SCRIPT.format(folder=self.folder, body=body or ":", code=code)]

    def gated(self, code: int = 0, gate: str = "gate") -> list[str]:
        """Ends when the file `gate` is there."""
        return self.script(f"while [ ! -e {gate} ]; do sleep 0.02; done", code)

    def open_gate(self, gate: str = "gate") -> None:
        (self.folder / gate).touch()

    def lines(self, kind: str = "", job_id: int | None = None) -> list[tuple[str, int, int, str, int]]:
        """(kind, job, attempt, word, nanoseconds), as written."""
        path = self.folder / "diary"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        found = [(row[0], int(row[1]), int(row[2]), row[3], int(row[4])) for row in rows]
        return [row for row in found if kind in {"", row[0]} and job_id in {None, row[1]}]


def read_sqlite(path: Path, query: str) -> list[dict[str, Any]]:
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    base.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in base.execute(query)]
    finally:
        base.close()


def violations(
    diary: Diary,
    jobs: list[dict[str, Any]],
    attempts: list[dict[str, Any]],
    events: list[dict[str, Any]],
    *,
    unknown: Collection[int] = (),
) -> list[str]:
    """`jobs`, `attempts`, `events`: whole tables. `unknown`: jobs whose supervisor was killed by the test, so that
    nobody can know how that attempt ended."""
    found: list[str] = []
    by_id = {job["id"]: job for job in jobs}
    tries = {(attempt["job_id"], attempt["number"]): attempt for attempt in attempts}
    for job_id in diary.answered:
        if job_id not in by_id:
            found.append(f"job {job_id} was answered and is not there")
        elif by_id[job_id]["state"] not in FINAL:
            found.append(f"job {job_id} is still {by_id[job_id]['state']}")
    found += _runs(diary, by_id, tries, unknown)
    found += _recorded(diary, by_id, attempts, unknown)
    found += _stories(by_id, events)
    return found


def _runs(diary: Diary, jobs: dict[int, Any], tries: dict[tuple[int, int], Any], unknown: Collection[int]) -> list[str]:
    found = []
    begun: set[tuple[int, int]] = set()
    ended_well: dict[int, int] = {}
    for kind, job_id, number, word, at in diary.lines():
        if kind == "overlap":
            found.append(f"job {job_id} attempt {number} found {word} in use")
        elif kind == "start":
            if (job_id, number) in begun:
                found.append(f"job {job_id} attempt {number} ran twice")
            begun.add((job_id, number))
            attempt = tries.get((job_id, number))
            if attempt is None:
                found.append(f"job {job_id} attempt {number} ran and is not in SQL")
            elif sorted(json.loads(attempt["gpu_indices"])) != sorted(
                int(gpu) for gpu in word.split(",") if gpu != "-"
            ):
                found.append(f"job {job_id} attempt {number} saw gpus {word}, SQL says {attempt['gpu_indices']}")
            if job_id in ended_well and job_id not in unknown:
                found.append(f"job {job_id} had ended well and ran again as attempt {number}")
            if at > diary.cancelled.get(job_id, at):
                found.append(f"job {job_id} started after its cancel was answered")
        elif word == "0":
            ended_well[job_id] = number
    return found


def _recorded(
    diary: Diary, jobs: dict[int, Any], attempts: list[dict[str, Any]], unknown: Collection[int]
) -> list[str]:
    codes = {(job_id, number): int(word) for kind, job_id, number, word, _ in diary.lines("end")}
    found = []
    for attempt in attempts:
        job_id, number = attempt["job_id"], attempt["number"]
        code = codes.get((job_id, number))
        told = f"job {job_id} attempt {number}"
        if attempt["outcome"] is None and jobs[job_id]["state"] in FINAL:
            found.append(f"{told} has no end, the job is {jobs[job_id]['state']}")
        if code is not None and job_id not in unknown and attempt["exit_code"] != code:
            found.append(f"{told} ended with {code}, SQL says {attempt['outcome']} {attempt['exit_code']}")
        if code is None and attempt["outcome"] in {"succeeded", "exit_nonzero"}:
            found.append(f"{told} never wrote an end, SQL says {attempt['outcome']}")
    numbers: dict[int, list[int]] = defaultdict(list)
    for attempt in attempts:
        numbers[attempt["job_id"]].append(attempt["number"])
    for job_id, seen in numbers.items():
        if sorted(seen) != list(range(1, jobs[job_id]["attempt"] + 1)):
            found.append(f"job {job_id} has attempts {seen}, its counter says {jobs[job_id]['attempt']}")
    return found


def _stories(jobs: dict[int, Any], events: list[dict[str, Any]]) -> list[str]:
    """Every change of state has its event, and the last one is where the job is."""
    found = []
    at: dict[int, str | None] = dict.fromkeys(jobs)
    for event in sorted(events, key=lambda row: int(row["id"])):
        job_id = event["job_id"]
        if event["from_state"] != at[job_id]:
            found.append(f"job {job_id} was {at[job_id]}, its next event says from {event['from_state']}")
        at[job_id] = event["to_state"]
    found += [
        f"job {job_id} is {jobs[job_id]['state']}, its last event says {state}"
        for job_id, state in at.items()
        if jobs[job_id]["state"] != state
    ]
    return found
