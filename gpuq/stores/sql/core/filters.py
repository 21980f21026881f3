"""gpuq.ports.records.JobFilter as SQL.

SQLite has no statistics here and guesses, so every page names the index that it is read by: a list costs what it
shows, whatever has piled up behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from sqlalchemy import BindParameter, ClauseElement, Integer, TextClause, bindparam, text

from gpuq.domain.states import FINAL, JobState
from gpuq.ports.records import JobFilter
from gpuq.stores.sql.core.statements import job_select, moment, number, word
from gpuq.stores.sql.schema.tables import jobs

UNSUCCESSFUL = frozenset({JobState.FAILED, JobState.CANCELLED})
_CONDITIONS = {
    "user": 'jobs."user" = :user',
    "group": 'jobs."group" = :group',
    "name": "jobs.name = :name",
    "priority": "jobs.priority = :priority",
    "ids": "",
    "array_id": "jobs.array_id = :array_id",
    "array_ids": "",
    "until_id": "jobs.id <= :until_id",
    "finished_since": "jobs.finished_at >= :finished_since",
    "finished_until": "jobs.finished_at < :finished_until",
    "after_id": "",
}
_AMONG = {
    "sqlite": "{column} IN (SELECT value FROM json_each(:{name}))",
    "postgresql": "{column} = ANY(CAST(:{name} AS bigint[]))",
}
_TYPES: dict[str, Callable[[str], BindParameter[Any]]] = {
    **dict.fromkeys(("user", "group", "name"), word),
    **dict.fromkeys(("priority", "array_id", "after_id", "until_id"), number),
    **dict.fromkeys(("finished_since", "finished_until"), moment),
    "limit": lambda name: bindparam(name, type_=Integer),
}


def in_list(values: Iterable[str]) -> str:
    """`('a', 'b')`, sorted."""
    return "(" + ", ".join(f"'{value}'" for value in sorted(map(str, values))) + ")"


def filter_shape(where: JobFilter) -> Hashable:
    """What the text of a filter's statement depends on."""
    given = tuple(getattr(where, name) is not None for name in _CONDITIONS)
    states = None if where.states is None else in_list(where.states)
    return states, given, where.newest_first, where.last_ended_first


def filtered(dialect: str, where: JobFilter) -> ClauseElement:
    """The page of ids is worked out first, from indexes alone where they suffice; then its rows are read."""
    if where.last_ended_first:
        page, order = _page_by_end(dialect, where), [jobs.c.finished_at.desc(), jobs.c.id.desc()]
    else:
        page, order = _page_by_id(dialect, where), [jobs.c.id.desc() if where.newest_first else jobs.c.id.asc()]
    return job_select(dialect).where(jobs.c.id.in_(_bound(page))).order_by(*order)


def named(dialect: str, where: JobFilter) -> ClauseElement:
    """(id, array, index in it) of the jobs that match: from indexes, mostly, and next to nothing to send."""
    direction = " DESC" if where.newest_first else ""
    return _bound(
        "SELECT jobs.id, jobs.array_id, jobs.array_index FROM jobs"
        f" WHERE jobs.id IN ({_page_by_id(dialect, where)}) ORDER BY jobs.id{direction}"
    )


def counted(dialect: str, where: JobFilter) -> ClauseElement:
    return _bound(f"SELECT count(*) FROM jobs{_all([*_in(where.states), *_beside_states(dialect, where)])}")


def _bound(statement: str) -> TextClause:
    """With the types of the parameters that are in it."""
    return text(statement).bindparams(
        *(make(name) for name, make in _TYPES.items() if re.search(rf":{name}\b", statement))
    )


def _in(states: frozenset[JobState] | None) -> list[str]:
    if states is None:
        return []
    return [f"jobs.state IN {in_list(states)}" if states else "1 = 0"]


def _beside_states(dialect: str, where: JobFilter) -> list[str]:
    after = "" if where.last_ended_first else f"jobs.id {'<' if where.newest_first else '>'} :after_id"
    among = _AMONG[dialect]
    texts = _CONDITIONS | {
        "ids": among.format(column="jobs.id", name="ids"),
        "array_ids": among.format(column="jobs.array_id", name="array_ids"),
        "after_id": after,
    }
    return [condition for name, condition in texts.items() if getattr(where, name) is not None and condition]


def _all(conditions: Sequence[str]) -> str:
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def _page(dialect: str, index: str | None, conditions: Sequence[str], order: str) -> str:
    hint = f" INDEXED BY {index}" if index is not None and dialect == "sqlite" else ""
    return f"SELECT jobs.id FROM jobs{hint}{_all(conditions)} ORDER BY {order} LIMIT :limit"


def _page_by_id(dialect: str, where: JobFilter) -> str:
    direction = " DESC" if where.newest_first else ""
    others = _beside_states(dialect, where)
    told_apart = {where.ids, where.array_id, where.array_ids, where.finished_since, where.finished_until}
    # A user's jobs stand together state by state, each by id.
    states = frozenset(JobState) if where.states is None and where.user is not None else where.states
    if not states or told_apart != {None}:
        return _page(dialect, None, [*_in(where.states), *others], f"jobs.id{direction}")
    index = "ix_jobs_state" if where.user is None else "ix_jobs_user"
    pages = [
        _page(dialect, index, [f"jobs.state = '{state}'", *others], f"jobs.id{direction}") for state in sorted(states)
    ]
    if len(pages) == 1:
        return pages[0]
    each = " UNION ALL ".join(f"SELECT id FROM ({page}) page_{place}" for place, page in enumerate(pages))
    return f"SELECT id FROM ({each}) pages ORDER BY id{direction} LIMIT :limit"


def _page_by_end(dialect: str, where: JobFilter) -> str:
    conditions = ["jobs.finished_at IS NOT NULL", *_beside_states(dialect, where)]
    if where.states != FINAL:
        conditions += _in(where.states)
    if where.after_id is not None:
        place = "SELECT finished_at, id FROM jobs WHERE id = :after_id"
        conditions.append(f"(jobs.finished_at, jobs.id) < ({place})")
    index = None
    if where.ids is None and where.array_id is None and where.array_ids is None:
        index = _index_by_end(where)
        if index == "ix_jobs_unsuccessful":
            # As it stands in the definition of the index.
            conditions += _in(UNSUCCESSFUL)
    return _page(dialect, index, conditions, "jobs.finished_at DESC, jobs.id DESC")


def _index_by_end(where: JobFilter) -> str:
    """The most telling first."""
    states = where.states or FINAL
    unsuccessful = states <= UNSUCCESSFUL
    if where.name is not None:
        return "ix_jobs_name_finished"
    if where.user is not None:
        return "ix_jobs_user" if unsuccessful else "ix_jobs_user_finished"
    if where.group is not None:
        return "ix_jobs_group_finished"
    # Of one state, in order; both together are not so few.
    return "ix_jobs_unsuccessful" if unsuccessful and len(states) == 1 else "ix_jobs_finished"
