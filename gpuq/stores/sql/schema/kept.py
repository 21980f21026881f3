"""Tables that keep the others small and quick: what many rows have alike, and what would be counted again and again."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Table, Text, UniqueConstraint

from gpuq.stores.sql.schema.tables import Id
from gpuq.stores.sql.schema.tables import metadata as metadata

# The variables of submissions, once for all that have the same: they are most of a submission.
environments = Table(
    "environments",
    metadata,
    Column("id", Id, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("env", Text, nullable=False),
    UniqueConstraint("hash", name="uq_environments_hash"),
    sqlite_autoincrement=True,
)

# See `totals.py`, whose triggers write it.
totals = Table(
    "totals",
    metadata,
    Column("name", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Index("ix_totals_name", "name"),
)
