"""Whether a job goes on waiting when one that it was to run after fails: `dependencies.keep_waiting`.

True in every row that is there: those people were told that their jobs would wait. The release before leaves the column
out, and so its jobs go on waiting, as they do there.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dependencies", sa.Column("keep_waiting", sa.Boolean(), nullable=False, server_default=sa.true()))
