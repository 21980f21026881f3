"""Encrypted variables: written with the jobs that share them, read for a launch. Nothing here can open them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ClauseElement, insert, select, update

from gpuq.ports.records import NewJob
from gpuq.ports.secrets import Sealed
from gpuq.stores.sql.core.statements import Statements, among, number, word
from gpuq.stores.sql.schema.secrets import secrets
from gpuq.stores.sql.schema.tables import jobs


def _new(dialect: str) -> ClauseElement:
    return insert(secrets).values(key=word("key"), sealed=word("sealed")).returning(secrets.c.id)


def _have(dialect: str) -> ClauseElement:
    return update(jobs).where(jobs.c.id.between(number("first"), number("last"))).values(secrets_id=number("secrets"))


def sealed_of(dialect: str) -> ClauseElement:
    """Key and text of a job's secrets, while there are any."""
    joined = jobs.join(secrets, secrets.c.id == jobs.c.secrets_id)
    return select(secrets.c.key, secrets.c.sealed).select_from(joined).where(jobs.c.id == number("job_id"))


def without_secrets(dialect: str) -> ClauseElement:
    """Which of the given jobs had secrets that are deleted."""
    joined = jobs.outerjoin(secrets, secrets.c.id == jobs.c.secrets_id)
    lost = jobs.c.secrets_id.is_not(None) & secrets.c.id.is_(None)
    return select(jobs.c.id).select_from(joined).where(among(dialect, "jobs.id"), lost)


def add_secrets(driver: Any, statements: Statements, new: Sequence[NewJob], ids: Sequence[int]) -> None:
    """For those of the jobs just stored that have some. Neighbours with the same share one row."""
    written: Sealed | None = None
    runs: list[tuple[Sealed, int, int]] = []
    for job_id, job in zip(ids, new, strict=True):
        if job.sealed is None:
            written = None
        elif job.sealed is written and runs[-1][2] == job_id - 1:
            runs[-1] = (written, runs[-1][1], job_id)
        else:
            written = job.sealed
            runs.append((written, job_id, job_id))
    rows: dict[int, int] = {}
    for sealed, first, last in runs:
        if id(sealed) not in rows:
            made = statements.of(_new)(driver, {"key": sealed.key, "sealed": sealed.text}).fetchone()
            rows[id(sealed)] = int(made[0])
        statements.of(_have)(driver, {"first": first, "last": last, "secrets": rows[id(sealed)]})
