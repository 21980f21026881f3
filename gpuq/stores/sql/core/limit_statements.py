"""Statements for limits: what they count, and who changed them."""

from __future__ import annotations

from sqlalchemy import BigInteger, ClauseElement, bindparam, func, insert, select, text

from gpuq.stores.sql.schema.limits import gpu_seconds, limit_audit


def some_values(dialect: str) -> ClauseElement:
    """The installation's values with one of the parameter `keys`."""
    among = "IN (SELECT value FROM json_each(:keys))" if dialect == "sqlite" else "= ANY(CAST(:keys AS text[]))"
    return text(f"SELECT key, value FROM installation WHERE key {among}")


def gpu_seconds_since(dialect: str) -> ClauseElement:
    """By user and group, of the hours from the parameter `hour` on."""
    used = gpu_seconds.c
    return (
        select(used.user, used.group, func.sum(used.seconds))
        .where(used.hour >= bindparam("hour", type_=BigInteger))
        .group_by(used.user, used.group)
    )


def add_limit_change(dialect: str) -> ClauseElement:
    """A row of the audit; its id is given."""
    return insert(limit_audit).values(
        {column.name: bindparam(column.name, type_=column.type) for column in limit_audit.c if column.name != "id"}
    )
