"""Who is logged in on the page: `web_sessions`.

A row is either a link, good once and for a minute, or the session that came of it. Only the hash of what
the browser holds is kept. `uid` binds it to the account as tokens are bound; `token_id` names the token that was traded
for it, with whose end it ends.

The release before does not know the table, and goes on with this schema.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "web_sessions",
        sa.Column("id", Id, primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("uid", sa.BigInteger()),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("agent", sa.Text()),
        sa.Column("token_id", sa.BigInteger()),
        sa.UniqueConstraint("hash", name="uq_web_sessions_hash"),
        sa.CheckConstraint("kind IN ('link', 'session')", name="ck_web_sessions_kind"),
    )
