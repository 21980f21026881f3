"""What the checker works from. None of it is gpuq's own view, except the rows that gpuq is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Run = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the jobs' diary. `at` in seconds since the epoch; `intended`: exit code, or minus a signal."""

    kind: str
    job: int
    attempt: int
    gpus: tuple[int, ...]
    pid: int
    at: float
    intended: int

    @property
    def run(self) -> Run:
        return (self.job, self.attempt)


@dataclass(frozen=True, slots=True)
class Submission:
    """`ids` is None when no answer came: then the jobs may be there, or not, but never twice."""

    name: str
    jobs: int
    ids: tuple[int, ...] | None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A cancel or a retry. `asked` and `answered` in seconds since the epoch; `state`: of the job, in the answer."""

    verb: str
    job: int
    asked: float
    answered: float | None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Kill:
    """A process of a run that the script itself killed. `what`: supervisor or job."""

    what: str
    run: Run
    at: float


@dataclass
class Evidence:
    """`jobs`, `attempts`, `events`: the rows of these tables. `left_processes`, `left_leases`: what was still there
    when nothing should be. `complaints`: of the script itself, such as a daemon that could not be started."""

    diary: list[Line] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    left_processes: list[str] = field(default_factory=list)
    left_leases: list[str] = field(default_factory=list)
    complaints: list[tuple[str, str]] = field(default_factory=list)


def read_diary(path: Path) -> list[Line]:
    """In the order of time. Raises ValueError for a torn line, which O_APPEND rules out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        kind, job, attempt, gpus, pid, at, intended = text.split()
        seen = tuple(int(gpu) for gpu in gpus.split(",")) if gpus != "-" else ()
        lines.append(Line(kind, int(job), int(attempt), seen, int(pid), int(at) / 1e9, int(intended)))
    return sorted(lines, key=lambda line: line.at)


def read_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """`jobs`, `attempts` and `events` as they stand in the database, read without any code of gpuq."""
    queries = {
        "jobs": "SELECT * FROM jobs ORDER BY id",
        "attempts": "SELECT * FROM attempts ORDER BY job_id, number",
        "events": "SELECT * FROM events ORDER BY id",
    }
    if url.startswith("sqlite:///"):
        return _from_sqlite(url.removeprefix("sqlite:///"), queries)
    return _from_postgres(url.replace("postgresql+psycopg://", "postgresql://"), queries)


def _from_sqlite(path: str, queries: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path, timeout=60)) as base:
        base.row_factory = sqlite3.Row
        return {name: [dict(row) for row in base.execute(query)] for name, query in queries.items()}


def _from_postgres(url: str, queries: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(url, row_factory=dict_row) as base:
        return {name: base.execute(query).fetchall() for name, query in queries.items()}
