"""Questions to the record, inside one transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any

from gpuq.domain.events import Event
from gpuq.domain.job import Attempt, Job
from gpuq.domain.priority import Priority
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.domain.totals import WAIT_BOUNDS, Totals
from gpuq.errors import NotFound
from gpuq.ports.records import FIRST_PLACE, AnsweredRequest, DeadLetter, JobFilter, ReadyDependent, Waiting
from gpuq.ports.secrets import Sealed
from gpuq.stores.sql.core import statements as sql
from gpuq.stores.sql.core.filters import counted, filter_shape, filtered, named
from gpuq.stores.sql.core.rows import (
    JOB_WIDTH,
    Prepared,
    attempt_from,
    event_from,
    job_from,
    state_from,
    waiting_from,
)
from gpuq.stores.sql.limits import SqlLimits
from gpuq.stores.sql.secrets import sealed_of, without_secrets


def no_such_job(job_id: int) -> NotFound:
    return NotFound(f"there is no job {job_id}", hint="`gpuq status -a` lists every job")


def _spec(text: str, env: str | None) -> JobSpec:
    """Variables in the stored text itself, of a release before or of a later change, are the job's."""
    stored = json.loads(text)
    if env is not None and "env" not in stored:
        stored["env"] = json.loads(env)
    return JobSpec.from_stored(stored)


def _begin(spec: str | None) -> float | str | None:
    return None if spec is None else JobSpec.from_stored(json.loads(spec)).begin


class SqlReader(SqlLimits):
    """gpuq.ports.records.Reader on one open transaction."""

    def __init__(self, driver: Any, statements: sql.Statements) -> None:
        self._driver = driver
        self._statements = statements
        self._dialect = statements.name

    def _rows(self, statement: sql.Build | Prepared, **values: Any) -> Sequence[Any]:
        prepared = statement if isinstance(statement, Prepared) else self._statements.of(statement)
        return prepared(self._driver, values).fetchall()  # type: ignore[no-any-return]

    def _scalar(self, statement: sql.Build | Prepared, **values: Any) -> Any:
        """The first column of the first row; None when there is no row."""
        rows = self._rows(statement, **values)
        return rows[0][0] if rows else None

    def _limit(self, limit: int | None) -> int | None:
        return sql.limit_of(self._dialect, limit)

    def job(self, job_id: int) -> Job:
        rows = self._rows(sql.job_by_id, id=job_id)
        if not rows:
            raise no_such_job(job_id)
        return job_from(rows[0])

    def _filter_values(self, where: JobFilter) -> dict[str, Any]:
        names = ("user", "group", "name", "array_id", "finished_since", "finished_until", "after_id", "until_id")
        values = {name: getattr(where, name) for name in names if getattr(where, name) is not None}
        if where.priority is not None:
            values["priority"] = int(where.priority)
        if where.ids is not None:
            values["ids"] = self._ids(where.ids)
        if where.array_ids is not None:
            values["array_ids"] = self._ids(where.array_ids)
        return values

    def jobs(self, where: JobFilter) -> list[Job]:
        key = (filtered, filter_shape(where))
        prepared = self._statements.made(key, lambda: filtered(self._dialect, where))
        rows = self._rows(prepared, limit=self._limit(where.limit), **self._filter_values(where))
        return [job_from(row) for row in rows]

    def names(self, where: JobFilter) -> list[tuple[int, int | None, int | None]]:
        prepared = self._statements.made((named, filter_shape(where)), lambda: named(self._dialect, where))
        rows = self._rows(prepared, limit=self._limit(where.limit), **self._filter_values(where))
        return [tuple(row) for row in rows]

    def count(self, where: JobFilter) -> int:
        if where.states is not None and where == JobFilter(states=where.states, limit=where.limit):
            counts = self.count_by_state()
            total = sum(counts.get(state, 0) for state in where.states)
        else:
            key = (counted, filter_shape(where))
            prepared = self._statements.made(key, lambda: counted(self._dialect, where))
            total = int(self._scalar(prepared, **self._filter_values(where)))
        return total if where.limit is None else min(total, where.limit)

    def count_by_state(self) -> dict[JobState, int]:
        """Only states that some job is in."""
        return {state_from(state): int(count) for state, count in self._rows(sql.totals_of_jobs) if count}

    def totals(self) -> Totals:
        found = {name: (int(number), float(seconds)) for name, number, seconds in self._rows(sql.all_totals)}
        of: dict[str, dict[str, int]] = {"jobs": {}, "attempts": {}, "waits": {}}
        for name, (number, _) in found.items():
            kind, _, word = name.partition(":")
            if word and number:
                of[kind][word] = number
        waits = of["waits"]
        within = accumulate(waits.get(str(bound), 0) for bound in WAIT_BOUNDS)
        return Totals(
            jobs={state_from(state): count for state, count in of["jobs"].items()},
            dead_letters=found.get("dead_letters", (0, 0.0))[0],
            attempts=of["attempts"],
            wait_counts=tuple(within),
            waits=sum(waits.values()),
            wait_s=sum(seconds for name, (_, seconds) in found.items() if name.startswith("waits:")),
        )

    def count_by_group(self) -> dict[str, dict[JobState, int]]:
        counts: dict[str, dict[JobState, int]] = {}
        for group, state, count in self._rows(sql.by_group):
            counts.setdefault(group, {})[state_from(state)] = int(count)
        return counts

    def array_counts(self, array_id: int) -> dict[JobState, tuple[int, int, int]]:
        rows = self._rows(sql.array_counts, array_id=array_id)
        return {state_from(state): (int(count), int(least), int(most)) for state, count, least, most in rows}

    def spec(self, job_id: int) -> tuple[JobSpec, int | None, int | None]:
        rows = self._rows(sql.spec_of, job_id=job_id)
        if not rows:
            raise no_such_job(job_id)
        text, env, uid, gid = rows[0]
        return _spec(text, env), uid, gid

    def specs(self, ids: Sequence[int]) -> dict[int, JobSpec]:
        rows = self._rows(sql.specs_of, ids=self._ids(ids)) if ids else ()
        return {job_id: _spec(text, env) for job_id, text, env in rows}

    def sealed(self, job_id: int) -> Sealed | None:
        rows = self._rows(sealed_of, job_id=job_id)
        return Sealed(*rows[0]) if rows else None

    def without_secrets(self, ids: Sequence[int]) -> frozenset[int]:
        return frozenset(row[0] for row in self._rows(without_secrets, ids=self._ids(ids))) if ids else frozenset()

    def attempts(self, job_id: int) -> list[Attempt]:
        return [attempt_from(row) for row in self._rows(sql.attempts_of, job_id=job_id)]

    def live_attempts(self, node: str | None = None) -> list[tuple[Job, Attempt]]:
        rows = self._rows(sql.live_attempts, node=node)
        return [(job_from(row[:JOB_WIDTH]), attempt_from(row[JOB_WIDTH:])) for row in rows]

    def processes(self, job_id: int, number: int) -> list[tuple[int, int]]:
        rows = self._rows(sql.processes_of, job_id=job_id, number=number)
        return [(pid, start) for pid, start in json.loads(rows[0][0])] if rows else []

    def events(self, *, job_id: int | None = None, after_id: int = 0, limit: int | None = None) -> list[Event]:
        values: dict[str, Any] = {"after_id": after_id, "limit": self._limit(limit)}
        if job_id is None:
            rows = self._rows(sql.events_after, **values)
        else:
            rows = self._rows(sql.events_of_job, job_id=job_id, **values)
        return [event_from(row) for row in rows]

    def last_event_id(self) -> int:
        return int(self._scalar(sql.last_event))

    def waiting(self, ids: Sequence[int]) -> dict[int, Waiting]:
        rows = self._rows(sql.waiting, ids=self._ids(ids)) if ids else ()
        return {row[0]: waiting_from(row) for row in rows}

    def queued(self, *, batch: int = 5000, after_id: int = 0) -> Iterator[tuple[int, int, float]]:
        while True:
            rows = self._rows(sql.queued_batch, after_id=after_id, limit=batch)
            yield from rows
            if len(rows) < batch:
                return
            after_id = rows[-1][0]

    def line(
        self,
        *,
        offset: int = 0,
        limit: int | None = None,
        user: str | None = None,
        group: str | None = None,
        name: str | None = None,
        after: tuple[float, int] = FIRST_PLACE,
    ) -> list[Job]:
        whose = {"user": user, "group": group, "name": name}
        values = {"offset": offset, "limit": self._limit(limit), **whose, "score": after[0], "id": after[1]}
        return [job_from(row) for row in self._rows(sql.line, **values)]

    def line_past(
        self,
        gpus: int | None,
        *,
        users: Collection[str],
        groups: Collection[str],
        arrays: Collection[int],
        limit: int,
        accounts: Collection[tuple[str, int | None]] = (),
    ) -> list[int]:
        passed = {
            "users": self._ids(sorted(users)),
            "groups": self._ids(sorted(groups)),
            "accounts": self._ids([f"{'' if uid is None else uid} {user}" for user, uid in accounts]),
        }
        rows = self._rows(
            sql.line_past, gpus=gpus, arrays=self._ids(sorted(arrays)), limit=self._limit(limit), **passed
        )
        return [row[0] for row in rows]

    def position(self, score: float, job_id: int) -> int:
        return int(self._scalar(sql.position, score=score, id=job_id)) + 1

    def positions(self, places: Collection[tuple[float, int]]) -> dict[int, int]:
        found: dict[int, int] = {}
        before, (score, job_id) = 1, FIRST_PLACE
        for to_score, to_id in sorted(places):
            values = {"score": score, "id": job_id, "to_id": to_id}
            if to_score > score:
                before += int(self._scalar(sql.between, to_score=to_score, **values))
            else:
                before += int(self._scalar(sql.between_alike, **values))
            found[to_id] = before
            score, job_id = to_score, to_id
        return found

    def delayed_until(self) -> float | None:
        at = self._scalar(sql.delayed_until)
        return None if at is None else float(at)

    def preemptions(self, ids: Collection[int], *, since: float) -> dict[int, int]:
        rows = self._rows(sql.preemptions, ids=self._ids(sorted(ids)), since=since) if ids else ()
        return {int(job_id): int(count) for job_id, count in rows}

    def oldest_queued(self, *, before: float, gpus: int, limit: int) -> list[int]:
        return [row[0] for row in self._rows(sql.oldest_queued, before=before, gpus=gpus, limit=limit)]

    def due(self, now: float, limit: int) -> list[int]:
        return [row[0] for row in self._rows(sql.due, now=now, limit=limit)]

    def front(self, priority: Priority, user: str | None = None) -> tuple[float, int] | None:
        found = (
            *self._rows(sql.front_in_line, priority=int(priority), user=user),
            *self._rows(sql.front_aside, priority=int(priority), user=user),
        )
        return min(((float(score), int(job_id)) for score, job_id in found), default=None)

    def before(self, score: float, job_id: int, other_than: str) -> tuple[float, int] | None:
        place = {"score": score, "id": job_id, "user": other_than}
        found = (*self._rows(sql.before_in_line, **place), *self._rows(sql.before_aside, **place))
        return max(((float(score), int(job_id)) for score, job_id in found), default=None)

    def ready_dependents(self, job_id: int) -> list[ReadyDependent]:
        rows = self._rows(sql.ready_dependents, on_id=job_id)
        return [ReadyDependent(*(*row[:-1], _begin(row[-1]))) for row in rows]

    def open_dependencies(self, job_id: int) -> list[tuple[int, str, JobState]]:
        return [(on, kind, state_from(state)) for on, kind, state in self._rows(sql.open_dependencies, job_id=job_id)]

    def job_with_key(self, user: str, key: str) -> int | None:
        found = self._scalar(sql.job_with_key, user=user, key=key)
        return None if found is None else int(found)

    def request(self, user: str, request_key: str) -> AnsweredRequest | None:
        rows = self._rows(sql.request, user=user, key=request_key)
        return AnsweredRequest(list(json.loads(rows[0][0])), rows[0][1]) if rows else None

    def dead_letters(self, limit: int | None = None) -> list[DeadLetter]:
        return [DeadLetter(*row) for row in self._rows(sql.dead_letters, limit=self._limit(limit))]

    def dead_letter(self, job_id: int) -> DeadLetter | None:
        rows = self._rows(sql.dead_letter, job_id=job_id)
        return DeadLetter(*rows[0]) if rows else None

    def count_dead_letters(self) -> int:
        return int(self._scalar(sql.count_dead_letters))

    def value(self, key: str) -> Any | None:
        text = self._scalar(sql.value_of, key=key)
        return None if text is None else json.loads(text)

    def values(self, prefix: str) -> dict[str, Any]:
        rows = self._rows(sql.values_of, prefix=prefix, length=len(prefix))
        return {key: json.loads(text) for key, text in rows}
