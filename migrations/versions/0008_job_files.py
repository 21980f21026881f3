"""What finished jobs have on the disk, and what was removed of it: `job_files`.

Sizes are kept, because walking a hundred thousand folders takes minutes; each finished job is measured once. A table
of its own, not columns of `jobs`: a row is written well after the end of a job, and no list of jobs reads it.
`finished_at` is the end that was measured (a job that is retried has another one later). `output_bytes` and
`checkpoint_bytes` are null where nothing is left; the partial indexes hold what is.

The release before does not know the table, and goes on with this schema.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "job_files",
        sa.Column("job_id", Id, autoincrement=False, nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=False),
        sa.Column("output_bytes", sa.BigInteger()),
        sa.Column("record_bytes", sa.BigInteger()),
        sa.Column("checkpoint_bytes", sa.BigInteger()),
        sa.Column("output_removed_at", sa.Double()),
        sa.Column("output_removed_why", sa.Text()),
        sa.Column("checkpoints_removed_at", sa.Double()),
        sa.Column("checkpoints_removed_why", sa.Text()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )
    for name, kept in (
        ("ix_job_files_output", "output_bytes IS NOT NULL"),
        ("ix_job_files_checkpoints", "checkpoint_bytes IS NOT NULL"),
    ):
        op.create_index(name, "job_files", ["finished_at"], sqlite_where=sa.text(kept), postgresql_where=sa.text(kept))
