"""gpuq.ports.records.JobFilter as SQL."""

from __future__ import annotations

from collections.abc import Hashable

from sqlalchemy import ClauseElement, ColumnElement, Integer, bindparam, func, literal_column, select

from gpuq.ports.records import JobFilter
from gpuq.stores.sql.core.statements import among, in_states, job_select, moment, number, word
from gpuq.stores.sql.schema.tables import in_list, jobs


def filter_shape(where: JobFilter) -> Hashable:
    """What the text of a filter's statement depends on."""
    given = tuple(
        getattr(where, name) is not None
        for name in (
            "user", "group", "name", "ids", "array_id", "array_ids", "finished_since", "finished_until", "after_id",
            "until_id",
        )
    )  # fmt: skip
    states = None if where.states is None else in_list(where.states)
    return states, given, where.newest_first


def filter_conditions(dialect: str, where: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions of a job filter. Their parameters are bound by name when the statement runs."""
    conditions: list[ColumnElement[bool]] = []
    if where.states is not None:
        conditions.append(in_states(where.states) if where.states else literal_column("1 = 0"))
    for name in ("user", "group", "name"):
        if getattr(where, name) is not None:
            conditions.append(jobs.c[name] == word(name))
    if where.ids is not None:
        conditions.append(among(dialect, "jobs.id"))
    if where.array_id is not None:
        conditions.append(jobs.c.array_id == number("array_id"))
    if where.array_ids is not None:
        conditions.append(among(dialect, "jobs.array_id", "array_ids"))
    if where.until_id is not None:
        conditions.append(jobs.c.id <= number("until_id"))
    if where.finished_since is not None:
        conditions.append(jobs.c.finished_at >= moment("finished_since"))
    if where.finished_until is not None:
        conditions.append(jobs.c.finished_at < moment("finished_until"))
    if where.after_id is not None:
        after = number("after_id")
        conditions.append(jobs.c.id < after if where.newest_first else jobs.c.id > after)
    return conditions


def filtered(dialect: str, where: JobFilter) -> ClauseElement:
    """The page of ids is worked out first, from indexes alone where they suffice; then its rows are read."""
    order = jobs.c.id.desc() if where.newest_first else jobs.c.id
    page = (
        select(jobs.c.id)
        .where(*filter_conditions(dialect, where))
        .order_by(order)
        .limit(bindparam("limit", type_=Integer))
    )
    return job_select(dialect).where(jobs.c.id.in_(page)).order_by(order)


def named(dialect: str, where: JobFilter) -> ClauseElement:
    """(id, array, index in it) of the jobs that match: from indexes, mostly, and next to nothing to send."""
    order = jobs.c.id.desc() if where.newest_first else jobs.c.id
    return (
        select(jobs.c.id, jobs.c.array_id, jobs.c.array_index)
        .where(*filter_conditions(dialect, where))
        .order_by(order)
        .limit(bindparam("limit", type_=Integer))
    )


def counted(dialect: str, where: JobFilter) -> ClauseElement:
    return select(func.count()).select_from(jobs).where(*filter_conditions(dialect, where))
