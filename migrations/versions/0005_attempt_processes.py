"""What was seen of the processes of an attempt: `attempt_processes`.

Where no control group holds a job, a process of it that has left its session, cleared its environment and lost its
parent is known by nothing but that it was seen below the job's supervisor, while that lived. A table of its own, not a
column of `attempts`: a row of it exists only for an attempt that has more than its main process and no control group,
so that neither a start, nor an end, nor a list of attempts reads or writes anything for it. The processes stand in one
text, pid and start time (clock ticks since boot) of each, because they are only ever read and written together. Rows of
attempts that have ended are removed now and then.

The release before does not know the table, and goes on with this schema.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "attempt_processes",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("processes", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_attempt_processes"),
    )
