"""What a storm asks and writes: thousands of jobs in a few questions, and each kind of write in one call of the driver,
which on PostgreSQL is one pipeline instead of a round trip a job."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gpuq.domain.spec import JobSpec
from gpuq.errors import GpuqError, WrongState
from gpuq.ports.records import Change, Dependency, HopelessDependent, Move, ReadyDependent
from gpuq.stores.sql.core import many_statements as many
from gpuq.stores.sql.core import write_statements as to
from gpuq.stores.sql.core.errors import violated
from gpuq.stores.sql.core.rows import Prepared, plain, state_from
from gpuq.stores.sql.core.savepoint import undoable
from gpuq.stores.sql.submission import key_taken
from gpuq.stores.sql.writer import CHANGEABLE, SqlWriter, require_expected

_Rows = dict[Prepared, list[dict[str, Any]]]


class SqlManyWriter(SqlWriter):
    """The part of gpuq.ports.records.Writer that is about many jobs at once."""

    @contextmanager
    def part(self) -> Iterator[None]:
        before = self.last_event, self.last_job
        try:
            with undoable(self._driver, self._statements.dialect.loaded_dbapi.Error):
                yield
        except BaseException:
            self.last_event, self.last_job = before
            raise

    def begins(self, ids: Collection[int]) -> dict[int, float | str | None]:
        return {job_id: _begin(spec) for job_id, spec in self._of(many.begins_of, ids)}

    def dependencies_of(self, ids: Collection[int]) -> dict[int, list[Dependency]]:
        found: dict[int, list[Dependency]] = {}
        for job_id, on_id, kind, state in self._of(many.dependencies_of, ids):
            found.setdefault(job_id, []).append(Dependency(on_id, kind, state_from(state)))
        return found

    def ready_dependents_of(self, ids: Collection[int]) -> list[tuple[int, ReadyDependent]]:
        rows = self._of(many.ready_dependents_of, ids, no_begin='"begin":null')
        return [(row[0], ReadyDependent(*(*row[1:-1], _begin(row[-1])))) for row in rows]

    def hopeless_dependents_of(self, ids: Collection[int]) -> list[HopelessDependent]:
        return [
            HopelessDependent(job_id, state_from(state), attempt, token, on_id, state_from(on_state), outcome, code)
            for job_id, state, attempt, token, on_id, on_state, outcome, code in self._of(
                many.hopeless_dependents_of, ids
            )
        ]

    def stored_specs(self, ids: Collection[int]) -> dict[int, str]:
        return dict(self._of(many.stored_specs_of, ids))

    def _of(self, statement: Callable[[str], Any], ids: Collection[int], **values: Any) -> Sequence[Any]:
        return self._rows(statement, ids=self._ids(sorted(ids)), **values) if ids else ()

    def move_many(self, changes: Sequence[Move]) -> None:
        rows: _Rows = {}
        events: list[dict[str, Any]] = []
        for change in changes:
            self._check_move(change)
            if change.seen is None:
                raise ValueError("a move among many names the state that it has seen")
            source, attempt, token = change.seen
            require_expected(change, source, attempt, token)
            values = to.move_values(change, source, attempt, token)
            rows.setdefault(self._move_update(source, change), []).append(values)
            number = to.event_attempt(change, source, attempt)
            told = (change.job_id, source, change.to, change.actor, change.at, change.detail, number)
            events.append(to.event_values(*told))
        self._change_rows(rows)
        self._add_events(events)

    def change_many(self, changes: Sequence[Change]) -> None:
        rows: _Rows = {}
        specs: list[dict[str, Any]] = []
        events: list[dict[str, Any]] = []
        for change in changes:
            if unknown := set(change.set) - CHANGEABLE:
                raise ValueError(f"an update cannot change {sorted(unknown)}")
            if change.set:
                values = {name: plain(value) for name, value in change.set.items()}
                values |= {"w_id": change.job_id, "w_state": change.state.value}
                rows.setdefault(self._column_update(frozenset(change.set)), []).append(values)
            if change.spec is not None:
                specs.append({"spec": change.spec, "job_id": change.job_id})
            told = (change.job_id, change.state, change.state, change.actor, change.at, change.detail, change.attempt)
            events.append(to.event_values(*told))
        self._change_rows(rows)
        if specs:
            self._change_rows({self._statements.of(to.write_spec): specs})
        self._add_events(events)

    def remove_dead_letters(self, ids: Collection[int]) -> None:
        if ids:
            self._run(many.remove_dead_letters, ids=self._ids(sorted(ids)))

    def _change_rows(self, rows: Mapping[Prepared, Sequence[Mapping[str, Any]]]) -> None:
        try:
            for prepared, values in rows.items():
                if prepared.each(self._driver, values) != len(values):
                    raise _changed_meanwhile(values)
        except self._statements.integrity_error as error:
            if violated(error, "uq_jobs_key", "jobs.user", "jobs.key"):
                raise key_taken() from error
            raise

    def _add_events(self, events: Iterable[dict[str, Any]]) -> None:
        rows = [tuple(event[name] for name in to.EVENT_COLUMNS) for event in events]
        if rows:
            self._event_insert().insert_rows(self._driver, to.EVENT_COLUMNS, rows, len(rows))
            if self._dialect == "sqlite":
                self.last_event = self.last_event_id()


def _begin(spec: str | None) -> float | str | None:
    return None if spec is None else JobSpec.from_stored(json.loads(spec)).begin


def _changed_meanwhile(values: Sequence[Mapping[str, Any]]) -> GpuqError:
    """Only where somebody writes who takes no turns with us."""
    which = f"job {values[0].get('w_id', values[0].get('job_id'))}" if len(values) == 1 else "some of these jobs"
    return WrongState(f"{which} changed in the same moment", hint="ask again: `gpuq status` shows how it stands now")
