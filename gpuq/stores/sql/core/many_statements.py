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


# A dependency `d` that keeps a job `j` from ever running, once the other job has not succeeded. What a database of the
# past made held may have run already: that is for a person to judge.
_HOPELESS = (
    "d.kind = 'success' AND NOT d.keep_waiting"
    " AND (j.state = 'blocked' OR j.state = 'held' AND coalesce(j.held_by, '') <> 'past')"
)


def hopeless_dependents_of(dialect: str) -> ClauseElement:
    """The waiting jobs that were to run after the success of one of these, and of one another, and so on; each with the
    first that it cannot run after, and how that one ended."""
    # CROSS JOIN keeps SQLite on the order of the tables: the others by their keys.
    join = "CROSS JOIN jobs j" if dialect == "sqlite" else "JOIN jobs j"
    on = "WHERE j.id = d.job_id AND" if dialect == "sqlite" else "ON j.id = d.job_id WHERE"
    return text(
        "WITH RECURSIVE hopeless(id, on_id) AS ("
        f"SELECT d.job_id, d.on_id FROM dependencies d {join} {on} {among(dialect, 'd.on_id')} AND {_HOPELESS}"
        f" UNION SELECT d.job_id, d.on_id FROM hopeless w JOIN dependencies d ON d.on_id = w.id {join}"
        f" {on} {_HOPELESS})"
        " SELECT j.id, j.state, j.attempt, j.token, o.id, o.state, o.outcome, o.exit_code"
        " FROM (SELECT id, min(on_id) AS on_id FROM hopeless GROUP BY id) w"
        " JOIN jobs j ON j.id = w.id JOIN jobs o ON o.id = w.on_id ORDER BY j.id"
    )


def remove_dead_letters(dialect: str) -> ClauseElement:
    return text(f"DELETE FROM dead_letter_queue WHERE {among(dialect, 'job_id')}")
