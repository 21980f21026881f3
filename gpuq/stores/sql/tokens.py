"""Bearer tokens for TCP: the secret is shown once, its SHA-256 is kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from gpuq.errors import DatabaseUnavailable
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.schema.tables import tokens

# Seconds: a token in steady use does not cost a write for every call.
USE_NOTED_EVERY_S = 600.0
PREFIX = "gpuq_"


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """Times in epoch seconds; `last_used_at` is right to within ten minutes."""

    id: int
    name: str
    user: str
    created_at: float
    revoked_at: float | None
    last_used_at: float | None


def _hash(secret: str) -> str:
    # The secret has 256 random bits, so a plain hash cannot be turned round and needs no salt.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class SqlTokens:
    """Bearer tokens: only the hash of a secret is kept."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, user: str, name: str, at: float) -> tuple[int, str]:
        """The id, and the secret, which nobody can read again."""
        secret = PREFIX + secrets.token_urlsafe(32)
        row = {"user": user, "name": name, "hash": _hash(secret), "created_at": at}
        with self.database.write() as connection:
            created = connection.execute(insert(tokens).values(row).returning(tokens.c.id)).scalar_one()
        return int(created), secret

    def find(self, secret: str, at: float) -> str | None:
        """The user of a token that is not revoked."""
        with self.database.read() as connection:
            found = connection.execute(
                select(tokens.c.id, tokens.c.user, tokens.c.last_used_at).where(
                    tokens.c.hash == _hash(secret), tokens.c.revoked_at.is_(None)
                )
            ).first()
        if found is None:
            return None
        token_id, user, last_used_at = found
        if last_used_at is None or at - last_used_at >= USE_NOTED_EVERY_S:
            self._note_use(token_id, at)
        return str(user)

    def _note_use(self, token_id: int, at: float) -> None:
        try:
            with self.database.write() as connection:
                connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=at))
        except DatabaseUnavailable:
            # Who may come in does not depend on whether the disk has room for this remark.
            return

    def list(self) -> list[TokenInfo]:
        """By id, the revoked ones included."""
        columns = (tokens.c[name] for name in ("id", "name", "user", "created_at", "revoked_at", "last_used_at"))
        with self.database.read() as connection:
            return [TokenInfo(*row) for row in connection.execute(select(*columns).order_by(tokens.c.id))]

    def revoke(self, token_id: int, at: float) -> bool:
        """Whether there was a live token of that id."""
        live = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        with self.database.write() as connection:
            return bool(connection.execute(live.values(revoked_at=at)).rowcount)
