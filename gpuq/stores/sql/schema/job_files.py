"""What finished jobs have on the disk, and what was removed of it: one row a job, written well after its end."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Table, Text, text

from gpuq.stores.sql.schema.kept import metadata as metadata
from gpuq.stores.sql.schema.tables import Id

job_files = Table(
    "job_files",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    # The end that was measured: a job that is retried has another one later.
    Column("finished_at", Double, nullable=False),
    # Null where nothing is left.
    Column("output_bytes", BigInteger),
    Column("record_bytes", BigInteger),
    Column("checkpoint_bytes", BigInteger),
    Column("output_removed_at", Double),
    Column("output_removed_why", Text),
    Column("checkpoints_removed_at", Double),
    Column("checkpoints_removed_why", Text),
)


def _kept(name: str, column: str) -> Index:
    where = text(f"{column} IS NOT NULL")
    return Index(name, job_files.c.finished_at, sqlite_where=where, postgresql_where=where)


_kept("ix_job_files_output", "output_bytes")
_kept("ix_job_files_checkpoints", "checkpoint_bytes")
