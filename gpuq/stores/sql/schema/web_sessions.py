"""Who is logged in on the page: links that are good once, and the sessions that came of them."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Double, Table, Text, UniqueConstraint

from gpuq.stores.sql.schema.job_files import metadata as metadata
from gpuq.stores.sql.schema.tables import Id

web_sessions = Table(
    "web_sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", Text, nullable=False),
    # Of what the browser holds; that itself is nowhere here.
    Column("hash", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("uid", BigInteger),
    Column("scope", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("agent", Text),
    Column("token_id", BigInteger),
    UniqueConstraint("hash", name="uq_web_sessions_hash"),
    CheckConstraint("kind IN ('link', 'session')", name="ck_web_sessions_kind"),
)
