"""What a job leaves: size and media type of its result, and its short result, as columns of `jobs`.

The bytes of a result are a file; only what lists and the command line tell stands here. Most jobs leave nothing, and
have nulls. The release before does not know the columns, and goes on with this schema: what a job that it retries had
left stays in its row, and is not shown until the next end, which writes all three.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("result_bytes", sa.BigInteger()),
        sa.Column("result_type", sa.Text()),
        sa.Column("short_result", sa.Text()),
    ):
        op.add_column("jobs", column)
