"""The evidence of a finished run as its judges look at it: sorted by job and by run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from evidence import Evidence, Line, Request, Run

from gpuq.domain.states import ACTIVE


class Picture:
    """The evidence, sorted by job and by run."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.jobs: dict[int, dict[str, Any]] = {row["id"]: row for row in evidence.jobs}
        self.attempts: dict[Run, dict[str, Any]] = {(row["job_id"], row["number"]): row for row in evidence.attempts}
        # Ended and back in line at once: not the job's fault, so no retry was used.
        self.given_back: set[Run] = {
            (event["job_id"], event["attempt"])
            for event in evidence.events
            if event["to_state"] == "queued" and event["from_state"] in ACTIVE and event.get("attempt")
        }
        self.runs: dict[Run, list[Line]] = defaultdict(list)
        for line in evidence.diary:
            self.runs[line.run].append(line)
        self.killed: dict[str, set[Run]] = defaultdict(set)
        for kill in evidence.kills:
            self.killed[kill.what].add(kill.run)
        self.requests: dict[str, dict[int, list[Request]]] = defaultdict(lambda: defaultdict(list))
        for request in evidence.requests:
            self.requests[request.verb][request.job].append(request)

    def start_of(self, run: Run) -> Line | None:
        return next((line for line in self.runs[run] if line.kind == "start"), None)

    def end_of(self, run: Run) -> Line | None:
        return next((line for line in self.runs[run] if line.kind == "end"), None)

    def retried_between(self, job: int, after: float, before: float) -> bool:
        """Whether somebody may have asked for another run: then `before` may be one of it."""
        return any(r.asked <= before and (r.answered or before) >= after for r in self.requests["retry"][job])
