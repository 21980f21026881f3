"""What a request with a key asked for, so that its key is not taken for another one's.

Null for requests of before, and for those that a release of before stores: any request is taken for those.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Written anew on SQLite, where a column that is added stands behind the constraints.
    anew = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("requests", recreate="always" if anew else "never") as table:
        table.add_column(sa.Column("fingerprint", sa.Text()))
