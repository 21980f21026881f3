"""Rows to domain values and back: column lists, conversions, and statements compiled once.

A prepared statement is SQLAlchemy Core's text for one dialect and the order of its parameters, given straight
to the driver's connection: 1 to 2 microseconds on SQLite, where `exec_driver_sql` takes 14 and executing the
construct 40. A job takes some twenty statements from submission to end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from sqlalchemy import ClauseElement
from sqlalchemy.engine import Dialect

from gpuq.domain.events import Event
from gpuq.domain.job import Attempt, Job
from gpuq.domain.outcome import Outcome
from gpuq.domain.priority import Priority
from gpuq.domain.states import WAITING, JobState
from gpuq.ports.records import Waiting

_STATES = {str(state): state for state in JobState}
_OUTCOMES: dict[str | None, Outcome | None] = {str(outcome): outcome for outcome in Outcome} | {None: None}
_PRIORITIES = {int(priority): priority for priority in Priority}


# With the columns of a job 500 parameters; SQLite of any age takes 999.
_ROWS_AT_ONCE = 20


class Prepared:
    """One statement's text. `names` is the order of the parameters where the driver takes them by place."""

    __slots__ = ("_fixed", "_names", "text")

    def __init__(self, statement: ClauseElement, dialect: Dialect, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(columns) if columns is not None else None)
        self.text = str(compiled)
        self._names: list[str] | None = getattr(compiled, "positiontup", None)
        # Literals of the statement itself.
        self._fixed = {name: value for name, value in (compiled.params or {}).items() if value is not None}

    def __call__(self, driver: Any, values: Mapping[str, Any] | None = None) -> Any:
        """The driver's cursor. `driver` is its connection (sqlite3 or psycopg)."""
        values = {**self._fixed, **(values or {})}
        if self._names is None:
            return driver.execute(self.text, values)
        return driver.execute(self.text, [values[name] for name in self._names])

    def each(self, driver: Any, many: Sequence[Mapping[str, Any]]) -> int:
        """Runs it once for every one of `many`, in their order and in one call of the driver; returns how many rows
        that changed."""
        names = self._names
        rows: list[Any]
        if names is None:
            rows = [{**self._fixed, **values} for values in many]
        else:
            filled = ({**self._fixed, **values} for values in many) if self._fixed else many
            rows = [[values[name] for name in names] for values in filled]
        cursor = driver.cursor()
        try:
            cursor.executemany(self.text, rows)
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def insert_rows(self, driver: Any, columns: Sequence[str], rows: Iterable[tuple[Any, ...]], count: int) -> None:
        """An INSERT of `columns`, given in the table's order, for every row; there are `count`, made one by one."""
        if self._names is not None:
            self._insert_in_portions(driver, iter(rows), count)
        elif count == 1:
            [row] = rows
            driver.execute(self.text, dict(zip(columns, row, strict=True)))
        else:
            # The same table and columns as COPY, which takes a tenth of the time of one execution a row.
            target = self.text.partition(" VALUES ")[0].removeprefix("INSERT INTO ")
            with driver.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

    def _insert_in_portions(self, driver: Any, rows: Iterator[tuple[Any, ...]], count: int) -> None:
        """Twenty rows a statement, as far as they go: what a statement costs however many rows it has is a quarter of
        what a row costs."""
        if count >= _ROWS_AT_ONCE:
            head, values, row = self.text.partition(" VALUES ")
            portions = (list(chain.from_iterable(islice(rows, _ROWS_AT_ONCE))) for _ in range(count // _ROWS_AT_ONCE))
            driver.executemany(head + values + ", ".join([row] * _ROWS_AT_ONCE), portions)
        driver.executemany(self.text, rows)


# Made once: `json.dumps` with arguments builds an encoder for every call.
json_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


_AS_THEY_ARE = frozenset({int, float, bool})


def plain(value: Any) -> Any:
    """A domain value as a column holds it: enum members as their values, tuples as JSON, free text without
    what a text column cannot hold (NUL on PostgreSQL, lone surrogates anywhere)."""
    if value is None or type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, Priority):
        return int(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, tuple | list):
        return json_text(list(value))
    return value


def clean(text: str) -> str:
    """Text that every database stores: NUL and lone surrogates are replaced."""
    if text.isascii() and "\0" not in text:
        return str.__str__(text)
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _tuple(text: str | None) -> tuple[Any, ...] | None:
    return None if text is None else tuple(json.loads(text))


def _on(text: str | None, kind: str) -> tuple[int, ...]:
    """From `any:7,success:9`, as the dependency column of a job's row is written."""
    if not text:
        return ()
    pairs = (part.split(":") for part in text.split(","))
    return tuple(sorted(int(on_id) for named, on_id in pairs if named == kind))


# The columns of `jobs` in the order of Job's fields up to and after its dependencies.
JOB_HEAD = (
    "id", "name", "user", "uid", "group", "state", "priority", "score", "command", "cwd", "gpus", "gpu_mem_mb",
    "gpu_model", "gpu_ids", "time_limit_s", "max_retries", "retries_used", "lost_count", "attempt", "token", "key",
    "preemptible", "array_id", "array_index", "array_limit",
)  # fmt: skip
JOB_TAIL = (
    "submitted_at", "eligible_at", "held_by", "stop_reason", "stop_deadline", "started_at", "finished_at", "outcome",
    "exit_code", "signal", "error", "parameters", "result_bytes", "result_type", "short_result",
)  # fmt: skip
JOB_FROM_ATTEMPT = ("node", "gpu_indices", "gpu_uuids", "pid", "log_path", "run_dir", "peak_gpu_mem_mb")
JOB_WIDTH = len(JOB_HEAD) + 1 + len(JOB_TAIL) + len(JOB_FROM_ATTEMPT)

ATTEMPT_COLUMNS = (
    "job_id", "number", "token", "node", "boot_id", "gpu_indices", "gpu_uuids", "gpu_mem_mb", "run_dir", "log_path",
    "claimed_at", "started_at", "finished_at", "supervisor_pid", "supervisor_start", "pid", "pid_start", "outcome",
    "exit_code", "signal", "error", "peak_gpu_mem_mb", "avg_gpu_util",
)  # fmt: skip
WAITING_COLUMNS = (
    "id", "score", "priority", "user", "uid", "group", "gpus", "gpu_mem_mb", "gpu_model", "gpu_ids", "time_limit_s",
    "preemptible", "array_id", "array_limit", "submitted_at", "command", "attempt",
)  # fmt: skip


def job_from(row: Sequence[Any]) -> Job:
    """A job from a row of `job_select`. A waiting job keeps the log of its last attempt, not its GPUs and processes."""
    (id_, name, user, uid, group, state_text, priority, score, command, cwd, gpus, gpu_mem_mb, gpu_model, gpu_ids,
     time_limit_s, max_retries, retries_used, lost_count, attempt, token, key, preemptible, array_id, array_index,
     array_limit, on, submitted_at, eligible_at, held_by, stop_reason, stop_deadline, started_at, finished_at,
     outcome, exit_code, signal, error, parameters, result_bytes, result_type, short_result, node, gpu_indices,
     gpu_uuids, pid, log_path, run_dir, peak_mb) = row  # fmt: skip
    state = _STATES[state_text]
    if state in WAITING:
        # Of an earlier attempt: its log can still be read, but it holds no place any more.
        node = gpu_indices = gpu_uuids = pid = peak_mb = None
    return Job(
        id_, name, user, uid, group, state, _PRIORITIES[priority], score, tuple(json.loads(command)), cwd, gpus,
        gpu_mem_mb, gpu_model, _tuple(gpu_ids), time_limit_s, max_retries, retries_used, lost_count, attempt, token,
        key, bool(preemptible), array_id, array_index, array_limit, _on(on, "success"), _on(on, "any"), submitted_at,
        eligible_at, held_by, stop_reason, stop_deadline, started_at, finished_at, _OUTCOMES[outcome], exit_code,
        signal, error, node, _tuple(gpu_indices), _tuple(gpu_uuids), pid, log_path, run_dir, peak_mb,
        None if parameters is None else tuple(json.loads(parameters).items()), result_bytes, result_type, short_result,
    )  # fmt: skip


def attempt_from(row: Sequence[Any]) -> Attempt:
    """An attempt from a row of the columns ATTEMPT_COLUMNS. One that has ended names no boot any more."""
    values = list(row)
    values[4] = values[4] or ""
    values[5] = tuple(json.loads(values[5]))
    values[6] = tuple(json.loads(values[6]))
    values[17] = _OUTCOMES[values[17]]
    return Attempt(*values)


def waiting_from(row: Sequence[Any]) -> Waiting:
    """A waiting job from a row of the columns WAITING_COLUMNS."""
    values = list(row)
    values[2] = _PRIORITIES[values[2]]
    values[9] = _tuple(values[9])
    values[11] = bool(values[11])
    values[15] = tuple(json.loads(values[15]))
    return Waiting(*values)


def event_from(row: Sequence[Any]) -> Event:
    """From (id, at, job_id, attempt, from_state, to_state, actor, detail)."""
    id_, at, job_id, attempt, from_state, to_state, actor, detail = row
    before = None if from_state is None else _STATES[from_state]
    return Event(id_, at, job_id, attempt, before, _STATES[to_state], actor, detail)


def state_from(text: str) -> JobState:
    return _STATES[text]
