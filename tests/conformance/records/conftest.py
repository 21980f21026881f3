"""The same suite on SQLite and on PostgreSQL, and builders of jobs in every state."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.ids import new_token
from gpuq.domain.job import Attempt, Job, Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import ACTIVE, FINAL, JobState
from gpuq.ports.records import Move, NewJob, Writer
from gpuq.stores.sql import SqlRecords, migrate, open_records

S = JobState
NOW = 1_800_000_000.0


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "gpuq.db"
    migrate.ensure(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    path = tmp_path / "gpuq.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def records(url: str) -> Iterator[SqlRecords]:
    opened = open_records(url)
    yield opened
    opened.close()


class Jobs:
    """Builds jobs in one transaction each. `NOW` is when they are submitted."""

    NOW = NOW

    def __init__(self, records: SqlRecords) -> None:
        self.records = records

    @staticmethod
    def new(*, state: JobState = S.QUEUED, user: str = "alice", score: float = 100.0, **fields: Any) -> NewJob:
        """`fields` are of NewJob where it has them, else of the submission."""
        of_job = {name: fields.pop(name) for name in list(fields) if name in NewJob._fields}
        values: dict[str, Any] = {
            "spec": JobSpec(**{"command": ["python", "train.py"], **fields}),
            "user": user,
            "uid": 1000,
            "gid": 1001,
            "name": "train",
            "cwd": "/home/alice/x",
            "state": state,
            "score": score,
            "max_retries": 3,
            "submitted_at": NOW,
        }
        if state is S.DELAYED:
            values["eligible_at"] = NOW + 60
        if state is S.HELD:
            values["held_by"] = user
        return NewJob(**(values | of_job))

    def add(self, **fields: Any) -> int:
        with self.records.write() as tx:
            return tx.add_jobs([self.new(**fields)], actor=fields.get("user", "alice"))[0]

    def get(self, job_id: int) -> Job:
        with self.records.read() as reader:
            return reader.job(job_id)

    def move(
        self,
        job_id: int,
        to: JobState,
        *expect: JobState,
        at: float = NOW,
        detail: str | None = None,
        guard: tuple[int | None, str | None] = (None, None),
        **fields: Any,
    ) -> None:
        """`guard`: attempt and token. `fields` are set."""
        attempt, token = guard
        with self.records.write() as tx:
            tx.move(Move(job_id, to, frozenset(expect), "gpuq", at, detail, attempt, token, fields))

    @staticmethod
    def fields_for(state: JobState) -> dict[str, Any]:
        """What a move to `state` must set."""
        return {
            S.DELAYED: {"eligible_at": NOW + 9},
            S.HELD: {"held_by": "alice"},
            S.STARTING: {"attempt": 1, "token": "t" * 32},
            S.STOPPING: {"stop_reason": "cancel"},
            S.COMPLETED: {"outcome": Outcome.SUCCEEDED, "finished_at": NOW + 9},
            S.FAILED: {"outcome": Outcome.EXIT_NONZERO, "finished_at": NOW + 9},
            S.CANCELLED: {"outcome": Outcome.CANCELLED, "finished_at": NOW + 9},
        }.get(state, {})

    def claim(self, job_id: int, *, at: float = NOW + 1, gpus: tuple[int, ...] = (0, 1), node: str = "box") -> str:
        token = new_token()
        with self.records.write() as tx:
            self.claim_in(tx, job_id, token, at=at, gpus=gpus, node=node)
        return token

    @staticmethod
    def claim_in(
        tx: Writer, job_id: int, token: str, *, at: float = NOW + 1, gpus: tuple[int, ...] = (0, 1), node: str = "box"
    ) -> None:
        number = tx.job(job_id).attempt + 1
        tx.move(
            Move(
                job_id, S.STARTING, frozenset({S.QUEUED}), "agent", at, set={"attempt": number, "token": token}
            )
        )  # fmt: skip
        uuids = tuple(f"GPU-{index}" for index in gpus)
        run_dir = f"/gpuq/jobs/{job_id}/{number}"
        tx.add_attempt(
            Attempt(
                job_id, number, token, node, "boot-1", gpus, uuids, None, run_dir, run_dir + "/output.log", at
            )
        )  # fmt: skip

    def run(self, job_id: int, *, at: float = NOW + 2, **claim: Any) -> str:
        """Claimed at one second before `at` and launched then."""
        token = self.claim(job_id, at=at - 1, **claim)
        number = self.get(job_id).attempt
        with self.records.write() as tx:
            tx.launched(job_id, number, token, Launched(11, 1100, 12, 1200, at))
            tx.move(
                Move(
                    job_id, S.RUNNING, frozenset({S.STARTING}), "agent", at,
                    attempt=number, token=token, set={"started_at": at},
                )
            )  # fmt: skip
        return token

    def finish(
        self, job_id: int, token: str, to: JobState, outcome: Outcome, *, at: float = NOW + 12, **set_: Any
    ) -> None:
        job = self.get(job_id)
        columns = dict(set_)
        if to in FINAL:
            columns |= {"outcome": outcome, "finished_at": at}
        with self.records.write() as tx:
            tx.end_attempt(job_id, job.attempt, token, Result(outcome, finished_at=at))
            tx.move(Move(job_id, to, frozenset({job.state}), "gpuq", at, attempt=job.attempt, token=token, set=columns))

    def in_state(self, state: JobState) -> int:
        """A job that went the ordinary way to `state`."""
        if state in {S.BLOCKED, S.HELD, S.DELAYED, S.QUEUED}:
            return self.add(state=state)
        job_id = self.add()
        if state is S.STARTING:
            self.claim(job_id)
            return job_id
        token = self.run(job_id)
        if state is S.STOPPING:
            self.move(job_id, S.STOPPING, S.RUNNING, stop_reason="cancel", stop_deadline=NOW + 30)
        elif state in FINAL:
            outcome = {S.COMPLETED: Outcome.SUCCEEDED, S.FAILED: Outcome.EXIT_NONZERO, S.CANCELLED: Outcome.CANCELLED}
            self.finish(job_id, token, state, outcome[state])
        assert state in ACTIVE | FINAL
        return job_id


@pytest.fixture
def jobs(records: SqlRecords) -> Jobs:
    return Jobs(records)
