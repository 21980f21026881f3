"""Changes to the record, inside one transaction that is the only writing one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement, insert, null, update

from gpuq.domain.job import Attempt, Launched
from gpuq.domain.outcome import Result
from gpuq.domain.priority import UNDECLARED_S
from gpuq.domain.results import RESULT_COLUMNS
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import FIELDS_OF_STATES, JobState, allowed
from gpuq.errors import LeaseLost, Refused
from gpuq.ports.records import DeadLetter, GivenNumbers, LimitChange, Move, NewJob
from gpuq.stores.sql.core import statements as sql
from gpuq.stores.sql.core import write_statements as to
from gpuq.stores.sql.core.errors import violated
from gpuq.stores.sql.core.limit_statements import add_limit_change
from gpuq.stores.sql.core.rows import Prepared, json_text, plain, state_from
from gpuq.stores.sql.reader import SqlReader, no_such_job
from gpuq.stores.sql.refusals import refusal, wrong_state
from gpuq.stores.sql.schema.tables import attempts, events, jobs
from gpuq.stores.sql.submission import add_dependencies, add_jobs, dependency_rows, key_taken, reserve_ids

# What `update_job` may change, and `move` may set besides the fields that belong to a state.
CHANGEABLE = frozenset(
    {
        "name", "group", "priority", "score", "command", "cwd", "gpus", "gpu_mem_mb", "gpu_model", "gpu_ids",
        "time_limit_s", "max_retries", "retries_used", "lost_count", "preemptible", "array_limit", "key",
        "eligible_at", "held_by", "stop_reason", "stop_deadline", "error",
    }
)  # fmt: skip
SETTABLE = CHANGEABLE | frozenset(FIELDS_OF_STATES) | {"attempt", *RESULT_COLUMNS}


def _move_columns(source: JobState, to: JobState, given: frozenset[str]) -> frozenset[str]:
    """The columns that lose their meaning on this way: null where they come from already needs no writing."""
    return frozenset(
        field
        for field, states in FIELDS_OF_STATES.items()
        if source in states and to not in states and field not in given
    )


def require_expected(change: Move, source: JobState, attempt: int, token: str | None) -> None:
    """Raises LeaseLost or WrongState unless the job is as the move expects it."""
    right_attempt = change.attempt is None or change.attempt == attempt
    if source not in change.expect or not right_attempt or change.token not in {None, token}:
        raise refusal(change, source, attempt)


class SqlWriter(SqlReader):
    """gpuq.ports.records.Writer on one open transaction. `last_event`, `last_job`: the newest ids that it gave; an
    event's only where the driver tells it."""

    def __init__(self, driver: Any, statements: sql.Statements, numbers: GivenNumbers | None = None) -> None:
        super().__init__(driver, statements)
        self._numbers = numbers
        self.last_event: int | None = None
        self.last_job: int | None = None

    def _run(self, statement: sql.Build, **values: Any) -> Any:
        return self._statements.of(statement)(self._driver, values)

    def add_jobs(
        self,
        new: Sequence[NewJob],
        *,
        actor: str,
        request_key: str | None = None,
        fingerprint: str | None = None,
    ) -> list[int]:
        if not new:
            return []
        ids = reserve_ids(self._driver, self._statements, len(new))
        if self._numbers is not None:
            self._numbers.reserve(ids[-1])
        self.last_event = add_jobs(self._driver, self._statements, new, ids, actor, request_key, fingerprint)
        self.last_job = ids[-1]
        return ids

    def add_known_job(self, job_id: int, job: NewJob, *, actor: str) -> None:
        if self._rows(to.now_in, w_id=job_id):
            raise Refused(f"there is a job {job_id} already", hint=f"`gpuq show {job_id}` tells what it is")
        self.last_event = add_jobs(self._driver, self._statements, [job], [job_id], actor, None, None)

    def count_attempts_from(self, job_id: int, number: int) -> None:
        self._run(to.count_attempts_from, number=number, job_id=job_id)

    def move(self, change: Move) -> None:
        self._check_move(change)
        source, attempt, token = change.seen or self._seen(change.job_id)
        require_expected(change, source, attempt, token)
        self._update_state(change, source, attempt, token)
        number = to.event_attempt(change, source, attempt)
        self._write_event(change.job_id, source, change.to, change.actor, change.at, change.detail, number)

    def _seen(self, job_id: int) -> tuple[JobState, int, str | None]:
        rows = self._rows(to.now_in, w_id=job_id)
        if not rows:
            raise no_such_job(job_id)
        state_text, attempt, token = rows[0]
        return state_from(state_text), attempt, token

    def _check_move(self, change: Move) -> None:
        for source in change.expect:
            if not allowed(source, change.to):
                raise ValueError(f"no transition {source} -> {change.to}")
        if not change.expect:
            raise ValueError("a move expects at least one state")
        for name, value in change.set.items():
            if name not in SETTABLE:
                raise ValueError(f"a move cannot set {name!r}")
            if value is not None and name in FIELDS_OF_STATES and change.to not in FIELDS_OF_STATES[name]:
                raise ValueError(f"{name!r} has no meaning while a job is {change.to}")

    def _update_state(self, change: Move, source: JobState, attempt: int, token: str | None) -> None:
        prepared = self._move_update(source, change)
        values = to.move_values(change, source, attempt, token)
        try:
            changed = prepared(self._driver, values).rowcount
        except self._statements.integrity_error as error:
            if violated(error, "uq_jobs_key", "jobs.user", "jobs.key"):
                raise key_taken() from error
            raise
        if changed != 1:
            raise refusal(change, source, attempt)

    def _move_update(self, source: JobState, change: Move) -> Prepared:
        given = frozenset(change.set)
        cleared = _move_columns(source, change.to, given)

        def build() -> ClauseElement:
            # The row was read in this transaction; the guard is repeated so that no write rests on that alone.
            return (
                update(jobs)
                .where(to.this_job(), jobs.c.state == sql.word("w_state"), jobs.c.attempt == sql.number("w_attempt"))
                .where(jobs.c.token.is_not_distinct_from(sql.word("w_token")))
                .values({name: null() for name in cleared})
            )

        return self._statements.made(("move", cleared, given), build, ["state", *sorted(given)])

    def _write_event(
        self,
        job_id: int,
        source: JobState,
        target: JobState,
        actor: str,
        at: float,
        detail: str | None,
        attempt: int | None,
    ) -> None:
        insert_event = self._event_insert()
        cursor = insert_event(self._driver, to.event_values(job_id, source, target, actor, at, detail, attempt))
        self.last_event = getattr(cursor, "lastrowid", None)

    def _event_insert(self) -> Prepared:
        return self._statements.made("event", lambda: insert(events), to.EVENT_COLUMNS)

    def add_attempt(self, attempt: Attempt) -> None:
        self._run(to.add_attempt, **{name: plain(getattr(attempt, name)) for name in to.ATTEMPT_COLUMNS})

    def launched(self, job_id: int, number: int, token: str, facts: Launched) -> None:
        update_attempt = self._statements.made(
            "launched", lambda: update(attempts).where(*to.this_attempt()), to.LAUNCHED_COLUMNS
        )
        values = {name: getattr(facts, name) for name in to.LAUNCHED_COLUMNS}
        guard = {"w_job_id": job_id, "w_number": number, "w_token": token}
        if update_attempt(self._driver, values | guard).rowcount != 1:
            raise self._attempt_lost(job_id, number)

    def note_peak(self, job_id: int, number: int, token: str, peak_mb: int) -> bool:
        guard = {"w_job_id": job_id, "w_number": number, "w_token": token}
        return bool(self._run(to.note_peak, peak_gpu_mem_mb=peak_mb, **guard).rowcount)

    def note_processes(self, job_id: int, number: int, token: str, seen: Sequence[tuple[int, int]], at: float) -> bool:
        guard = {"w_job_id": job_id, "w_number": number, "w_token": token}
        return bool(self._run(to.note_processes, processes=json_text(seen), at=at, **guard).rowcount)

    def forget_processes(self) -> int:
        return int(self._run(to.forget_processes).rowcount)

    def end_attempt(self, job_id: int, number: int, token: str, result: Result) -> None:
        if result.finished_at is None:
            raise ValueError("an attempt ends at some time: finished_at is None")
        changed = self._run(
            to.end_attempt,
            outcome=result.outcome.value,
            exit_code=result.exit_code,
            signal=result.signal,
            error=plain(result.error),
            started_at=result.started_at,
            finished_at=result.finished_at,
            peak_gpu_mem_mb=result.peak_gpu_mem_mb,
            avg_gpu_util=result.avg_gpu_util,
            job_id=job_id,
            number=number,
            token=token,
        )
        if changed.rowcount != 1:
            raise self._attempt_lost(job_id, number)

    def _attempt_lost(self, job_id: int, number: int) -> LeaseLost:
        return LeaseLost(
            f"job {job_id}: attempt {number} is not live under that token, or has gone further",
            hint=f"`gpuq show {job_id}` tells what happened to it",
        )

    def update_job(self, job_id: int, values: Mapping[str, Any], *, expect: frozenset[JobState]) -> None:
        """`values` may also hold `spec`, the whole submission as it is now; or name fields that stand in it alone
        (`signal`, `kill_grace_s`, `env`, …), and `after` and `after_any`, which replace the job's dependencies."""
        columns = {name: plain(value) for name, value in values.items() if name in CHANGEABLE}
        stored = {name: value for name, value in values.items() if name in JobSpec.model_fields}
        if "spec" in values:
            stored = values["spec"].model_dump(mode="json")
        if unknown := set(values) - set(columns) - set(stored) - {"spec"}:
            raise ValueError(f"an update cannot change {sorted(unknown)}")
        rows = self._rows(to.now_in, w_id=job_id)
        if not rows:
            raise no_such_job(job_id)
        state = state_from(rows[0][0])
        if state not in expect:
            raise wrong_state(job_id, state, expect)
        if columns:
            self._update_columns(job_id, state, columns)
        if stored:
            self._update_spec(job_id, stored)

    def _column_update(self, columns: frozenset[str]) -> Prepared:
        def build() -> ClauseElement:
            return update(jobs).where(to.this_job(), jobs.c.state == sql.word("w_state"))

        return self._statements.made(("update", columns), build, sorted(columns))

    def _update_columns(self, job_id: int, state: JobState, columns: dict[str, Any]) -> None:
        prepared = self._column_update(frozenset(columns))
        try:
            changed = prepared(self._driver, columns | {"w_id": job_id, "w_state": state.value}).rowcount
        except self._statements.integrity_error as error:
            if violated(error, "uq_jobs_key", "jobs.user", "jobs.key"):
                raise key_taken() from error
            raise
        if changed != 1:
            raise wrong_state(job_id, state, frozenset({state}))

    def _update_spec(self, job_id: int, values: dict[str, Any]) -> None:
        # The stored text is changed field by field, so that what another release wrote there stays.
        spec = json.loads(self._scalar(to.stored_spec, job_id=job_id))
        spec |= {name: int(value) if name == "priority" else value for name, value in values.items()}
        self._run(to.write_spec, spec=json_text(spec), job_id=job_id)
        if "after" in values or "after_any" in values:
            self._run(to.forget_dependencies, job_id=job_id)
            keep = bool(spec.get("keep_waiting"))
            rows = dependency_rows(job_id, spec.get("after") or (), spec.get("after_any") or (), keep)
            add_dependencies(self._driver, self._statements, rows)

    def rescore(self, per_priority: float, per_declared_s: float) -> int:
        values = {"per_priority": per_priority, "per_declared_s": per_declared_s, "undeclared_s": UNDECLARED_S}
        return int(self._run(to.rescore, **values).rowcount)

    def add_event(
        self, job_id: int, state: JobState, actor: str, at: float, detail: str, attempt: int | None = None
    ) -> None:
        self._write_event(job_id, state, state, actor, at, detail, attempt)

    def add_dead_letter(self, letter: DeadLetter) -> None:
        self._run(
            to.dead_letter,
            job_id=letter.job_id,
            failed_at=letter.failed_at,
            outcome=plain(letter.outcome),
            error=plain(letter.error),
            attempts=letter.attempts,
            log_tail=plain(letter.log_tail),
        )

    def remove_dead_letter(self, job_id: int) -> bool:
        return bool(self._run(to.remove_dead_letter, job_id=job_id).rowcount)

    def set_value(self, key: str, value: Any | None, at: float) -> None:
        if value is None:
            self._run(to.remove_value, key=key)
        else:
            self._run(to.set_value, key=key, value=json_text(value), at=at)

    def add_limit_change(self, change: LimitChange) -> None:
        self._run(add_limit_change, **change._asdict())

    def forget_requests(self, before: float) -> int:
        return int(self._run(to.forget_requests, before=before).rowcount)
