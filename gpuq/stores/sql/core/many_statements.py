"""Statements about many jobs at once; the parameter `ids` names them."""

from __future__ import annotations

from sqlalchemy import ClauseElement, Text, bindparam, select, text

from gpuq.stores.sql.core.statements import OPEN_DEPENDENCY, among, without_begin
from gpuq.stores.sql.schema.tables import dependencies, jobs, specs


def begins_of(dialect: str) -> ClauseElement:
    """(id, stored submission), which is NULL where it names no begin time."""
    return text(
        f"SELECT s.job_id, {without_begin(dialect)} FROM specs s WHERE {among(dialect, 's.job_id')}"
    ).bindparams(bindparam("no_begin", '"begin":null', type_=Text))


def stored_specs_of(dialect: str) -> ClauseElement:
    return select(specs.c.job_id, specs.c.spec).where(among(dialect, "specs.job_id"))


def dependencies_of(dialect: str) -> ClauseElement:
    """Every dependency of these jobs, with the state of the job that is waited for."""
    return (
        select(dependencies.c.job_id, dependencies.c.on_id, dependencies.c.kind, jobs.c.state)
        .join(jobs, jobs.c.id == dependencies.c.on_id)
        .where(among(dialect, "dependencies.job_id"))
    )


def ready_dependents_of(dialect: str) -> ClauseElement:
    """The blocked jobs that name one of these (the first such is the first column) and wait for none any more."""
    return text(
        f"SELECT w.on_id, j.id, j.gpus, j.score, j.attempt, j.token, {without_begin(dialect)}"
        " FROM (SELECT job_id, min(on_id) AS on_id FROM dependencies"
        f" WHERE {among(dialect, 'on_id')} GROUP BY job_id) w"
        " JOIN jobs j ON j.id = w.job_id JOIN specs s ON s.job_id = j.id"
        # The unary plus keeps SQLite on the primary key.
        f" WHERE {'+' if dialect == 'sqlite' else ''}j.state = 'blocked'"
        " AND NOT EXISTS (SELECT 1 FROM dependencies d JOIN jobs o ON o.id = d.on_id"
        f" WHERE d.job_id = j.id AND {OPEN_DEPENDENCY}) ORDER BY j.id"
    ).bindparams(bindparam("no_begin", type_=Text))


def remove_dead_letters(dialect: str) -> ClauseElement:
    return text(f"DELETE FROM dead_letter_queue WHERE {among(dialect, 'job_id')}")
