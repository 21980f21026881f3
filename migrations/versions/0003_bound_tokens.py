"""Tokens are bound to a uid, have a scope and an end; what a job printed is in no error any more.

Tokens of before are bound once, here, to the uid that their user has now: it is the account for which they worked
until now. Not bound are those of root, which administrators could make for themselves, and those of names without an
account: a daemon of root's refuses them. Those of before keep the rights that they had (no scope), for a year more.
The release before goes on with this schema: what it makes has neither uid nor scope nor end.

The line of the output that told of a lack of GPU memory was stored as the error, which everybody may see.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import pwd
import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

YEAR_S = 365 * 86400
TOLD = "out of GPU memory"

tokens = sa.table(
    "tokens",
    sa.column("user", sa.Text()),
    sa.column("uid", sa.BigInteger()),
    sa.column("expires_at", sa.Double()),
)


def upgrade() -> None:
    # Written anew on SQLite, where a column that is added stands behind the constraints.
    sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table(
        "tokens", recreate="always" if sqlite else "never", table_kwargs={"sqlite_autoincrement": True}
    ) as table:
        table.add_column(sa.Column("uid", sa.BigInteger()))
        table.add_column(sa.Column("scope", sa.Text()))
        table.add_column(sa.Column("expires_at", sa.Double()))
    bind_tokens()
    forget_lines()


def bind_tokens() -> None:
    connection = op.get_bind()
    connection.execute(tokens.update().values(expires_at=time.time() + YEAR_S))
    for (user,) in connection.execute(sa.select(tokens.c.user).distinct()).all():
        try:
            uid = pwd.getpwnam(user).pw_uid
        except (KeyError, ValueError):
            continue
        if uid != 0:
            connection.execute(tokens.update().where(tokens.c.user == user).values(uid=uid))


def forget_lines() -> None:
    connection = op.get_bind()
    line = "(SELECT a.error FROM attempts a WHERE a.job_id = events.job_id AND a.number = events.attempt)"
    connection.execute(
        sa.text(
            f"UPDATE events SET detail = replace(detail, {line}, :told)"
            f" WHERE detail LIKE 'gpu_oom; %' AND length({line}) > 0"
        ),
        {"told": TOLD},
    )
    for table in ("attempts", "jobs", "dead_letter_queue"):
        connection.execute(
            sa.text(f"UPDATE {table} SET error = :told WHERE outcome = 'gpu_oom' AND error IS NOT NULL"), {"told": TOLD}
        )
