"""What jobs have on the disk, as far as it was measured: gpuq.ports.job_files.JobFiles."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy import Text as SqlText

from gpuq.domain.states import FINAL, JobState
from gpuq.ports.job_files import Choice, Ended, Removed, Share, Sizes, Totals, What
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.core.rows import clean
from gpuq.stores.sql.schema.job_files import job_files
from gpuq.stores.sql.schema.tables import attempts, dead_letter_queue, dependencies, events, jobs

_ENDED: tuple[ColumnElement[Any], ...] = (
    jobs.c.id, jobs.c.user, jobs.c.uid, jobs.c.state, jobs.c.attempt, jobs.c.finished_at,
    job_files.c.output_bytes, job_files.c.record_bytes, job_files.c.checkpoint_bytes,
    job_files.c.finished_at.label("measured"),
)  # fmt: skip
_LEFT = {What.OUTPUT: job_files.c.output_bytes, What.CHECKPOINTS: job_files.c.checkpoint_bytes}
_NOTE_MEASURED = text(
    "INSERT INTO job_files (job_id, finished_at, output_bytes, record_bytes, checkpoint_bytes)"
    " SELECT id, :finished_at, :output, :records, :checkpoints FROM jobs WHERE id = :job_id"
    " ON CONFLICT (job_id) DO UPDATE SET finished_at = excluded.finished_at, output_bytes = excluded.output_bytes,"
    " record_bytes = excluded.record_bytes, checkpoint_bytes = excluded.checkpoint_bytes"
)


def _no_live_attempt() -> ColumnElement[bool]:
    return ~exists().where(attempts.c.job_id == jobs.c.id, attempts.c.outcome.is_(None))


def _is_dead_letter() -> ColumnElement[bool]:
    return exists().where(dead_letter_queue.c.job_id == jobs.c.id)


def _measured() -> ColumnElement[bool]:
    return and_(job_files.c.job_id.is_not(None), job_files.c.finished_at == jobs.c.finished_at)


def _with_files() -> FromClause:
    return jobs.outerjoin(job_files, job_files.c.job_id == jobs.c.id)


def _ended(row: Row[Any]) -> Ended:
    sizes = Sizes(row.output_bytes, row.record_bytes, row.checkpoint_bytes) if row.measured == row.finished_at else None
    return Ended(row.id, row.user, row.uid, JobState(row.state), row.attempt, row.finished_at, sizes)


def _chosen(choice: Choice) -> list[ColumnElement[bool]]:
    """Without dead letters or not: that is for the caller to say."""
    left = [job_files.c.output_bytes.is_not(None)]
    if choice.checkpoints:
        left.append(job_files.c.checkpoint_bytes.is_not(None))
    where = [jobs.c.finished_at.is_not(None), _no_live_attempt(), or_(~func.coalesce(_measured(), text("1=0")), *left)]
    if choice.before is not None:
        where.append(jobs.c.finished_at < choice.before)
    if choice.user is not None:
        where.append(jobs.c.user == choice.user)
    if choice.group is not None:
        where.append(jobs.c.group == choice.group)
    if choice.states is not None:
        where.append(jobs.c.state.in_(sorted(choice.states)))
    if choice.ids is not None:
        where.append(jobs.c.id.in_(choice.ids))
    return where


class SqlJobFiles:
    """gpuq.ports.job_files.JobFiles on one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def ends_after(self, event_id: int, limit: int) -> tuple[int, list[Ended]]:
        seen = (
            select(events.c.id, events.c.job_id, events.c.to_state)
            .where(events.c.id > event_id)
            .order_by(events.c.id)
            .limit(limit)
        )
        with self.database.read() as connection:
            rows = connection.execute(seen).all()
            ids = sorted({row.job_id for row in rows if row.to_state in FINAL})
            found = select(*_ENDED).select_from(_with_files()).where(jobs.c.id.in_(ids))
            found = found.where(jobs.c.finished_at.is_not(None), _no_live_attempt()).order_by(jobs.c.id)
            ended = [_ended(row) for row in connection.execute(found)] if ids else []
        return (rows[-1].id if rows else event_id), ended

    def note_measured(self, found: Sequence[tuple[Ended, Sizes]]) -> None:
        rows = [
            {"job_id": job.id, "finished_at": job.finished_at, **sizes._asdict()} for job, sizes in found
        ]  # fmt: skip
        if rows:
            with self.database.write() as connection:
                connection.execute(_NOTE_MEASURED, rows)

    def note_removed(self, what: What, job_ids: Collection[int], at: float, why: str) -> None:
        gone: dict[str, Any] = {f"{what}_removed_at": at, f"{what}_removed_why": clean(why)}
        gone |= {"output_bytes": None, "record_bytes": None} if what is What.OUTPUT else {"checkpoint_bytes": None}
        if job_ids:
            with self.database.write() as connection:
                connection.execute(update(job_files).where(job_files.c.job_id.in_(job_ids)).values(gone))

    def removed(self, job_id: int, what: What) -> Removed | None:
        at, why = job_files.c[f"{what}_removed_at"], job_files.c[f"{what}_removed_why"]
        with self.database.read() as connection:
            row = connection.execute(select(at, why).where(job_files.c.job_id == job_id)).first()
        return None if row is None or row[0] is None else Removed(row[0], row[1] or "")

    def due(self, what: What, before: float, limit: int, skip: Collection[int] = ()) -> list[Ended]:
        asked = (
            select(*_ENDED)
            .select_from(job_files.join(jobs, jobs.c.id == job_files.c.job_id))
            .where(_LEFT[what].is_not(None), job_files.c.finished_at < before, jobs.c.finished_at < before)
            .where(_no_live_attempt(), ~_is_dead_letter(), jobs.c.id.not_in(list(skip)))
            .order_by(job_files.c.finished_at)
            .limit(limit)
        )
        return self._ended(asked)

    def chosen(self, choice: Choice, *, after_id: int, limit: int) -> list[Ended]:
        asked = select(*_ENDED).select_from(_with_files()).where(*_chosen(choice), ~_is_dead_letter())
        return self._ended(asked.where(jobs.c.id > after_id).order_by(jobs.c.id).limit(limit))

    def not_measured(self, choice: Choice, limit: int) -> list[Ended]:
        asked = select(*_ENDED).select_from(_with_files()).where(*_chosen(choice), ~_is_dead_letter())
        return self._ended(asked.where(~func.coalesce(_measured(), text("1=0"))).order_by(jobs.c.id).limit(limit))

    def _ended(self, asked: Select[Any]) -> list[Ended]:
        with self.database.read() as connection:
            return [_ended(row) for row in connection.execute(asked)]

    def totals(self, choice: Choice) -> Totals:
        fresh = func.coalesce(_measured(), text("1=0"))

        def total(column: ColumnElement[Any]) -> ColumnElement[Any]:
            return func.coalesce(func.sum(case((fresh, func.coalesce(column, 0)), else_=0)), 0)

        asked = select(
            func.count(),
            total(job_files.c.output_bytes),
            total(job_files.c.record_bytes),
            total(job_files.c.checkpoint_bytes),
            func.coalesce(func.sum(case((fresh, 0), else_=1)), 0),
        ).select_from(_with_files())
        letters = select(func.count()).select_from(_with_files()).where(*_chosen(choice), _is_dead_letter())
        with self.database.read() as connection:
            count, output, records, checkpoints, rest = map(
                int, connection.execute(asked.where(*_chosen(choice), ~_is_dead_letter())).one()
            )
            return Totals(count, output, records, checkpoints, rest, int(connection.execute(letters).scalar_one()))

    def still_ended(self, job_id: int, finished_at: float) -> bool:
        asked = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.finished_at == finished_at)
        with self.database.read() as connection:
            return connection.execute(asked.where(_no_live_attempt(), ~_is_dead_letter())).first() is not None

    def shares(self, by: str, output_before: float | None, checkpoints_before: float | None, limit: int) -> list[Share]:
        keys = {
            "user": jobs.c.user,
            "group": func.coalesce(jobs.c.group, "-"),
            "job": cast(jobs.c.id, SqlText),
        }

        def total(value: ColumnElement[Any]) -> ColumnElement[Any]:
            return func.coalesce(func.sum(func.coalesce(value, 0)), 0)

        def due(before: float | None, value: ColumnElement[Any]) -> ColumnElement[Any]:
            if before is None:
                return literal_column("0")
            return case((and_(jobs.c.finished_at < before, ~_is_dead_letter()), value), else_=0)

        output = func.coalesce(job_files.c.output_bytes, 0) + func.coalesce(job_files.c.record_bytes, 0)
        checkpoints = func.coalesce(job_files.c.checkpoint_bytes, 0)
        asked = (
            select(
                keys[by].label("key"),
                func.count().label("jobs"),
                total(job_files.c.output_bytes).label("output"),
                total(job_files.c.record_bytes).label("records"),
                total(checkpoints).label("checkpoints"),
                func.coalesce(
                    func.sum(due(output_before, output) + due(checkpoints_before, checkpoints)), 0
                ).label("freed"),
            )
            .select_from(job_files.join(jobs, jobs.c.id == job_files.c.job_id))
            .where(or_(job_files.c.output_bytes.is_not(None), job_files.c.checkpoint_bytes.is_not(None)))
            .group_by(keys[by])
            .order_by(func.sum(output + checkpoints).desc(), keys[by])
            .limit(limit)
        )  # fmt: skip
        with self.database.read() as connection:
            return [Share(str(row[0]), *(int(value) for value in row[1:])) for row in connection.execute(asked)]

    def unended(self, limit: int) -> list[tuple[int, str, str | None, int]]:
        asked = select(jobs.c.id, jobs.c.user, jobs.c.group, jobs.c.attempt)
        states = sorted(set(JobState) - FINAL)
        asked = asked.where(jobs.c.state.in_(states), jobs.c.attempt > 0).order_by(jobs.c.id).limit(limit)
        with self.database.read() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(asked)]

    def forget(self, before: float, limit: int) -> int:
        newest = select(func.max(jobs.c.id)).scalar_subquery()
        old = (
            select(jobs.c.id)
            .select_from(jobs.join(job_files, job_files.c.job_id == jobs.c.id))
            .where(jobs.c.finished_at < bindparam("before"), job_files.c.finished_at == jobs.c.finished_at)
            .where(job_files.c.output_bytes.is_(None), job_files.c.checkpoint_bytes.is_(None))
            .where(_no_live_attempt(), ~_is_dead_letter())
            # What comes after another job still names it; and by the newest id a database is recognised.
            .where(~exists().where(dependencies.c.on_id == jobs.c.id), jobs.c.id < newest)
            .order_by(jobs.c.finished_at)
            .limit(limit)
        )
        with self.database.read() as connection:
            ids = [row[0] for row in connection.execute(old, {"before": before})]
        if not ids:
            return 0
        with self.database.write() as connection:
            # Asked again: somebody may have retried one of them, or submitted a job that comes after it.
            done = delete(jobs).where(jobs.c.id.in_(ids), jobs.c.finished_at < before, ~_is_dead_letter())
            done = done.where(_no_live_attempt(), ~exists().where(dependencies.c.on_id == jobs.c.id))
            return int(connection.execute(done).rowcount)

    def database_bytes(self) -> int:
        if self.database.path is not None:
            beside = [self.database.path.with_name(self.database.path.name + end) for end in ("", "-wal", "-shm")]
            return sum(path.stat().st_blocks * 512 for path in beside if path.exists())
        with self.database.read() as connection:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
