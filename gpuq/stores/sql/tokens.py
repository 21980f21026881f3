"""Bearer tokens for TCP: the secret is shown once, its SHA-256 is kept."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from sqlalchemy import Row, insert, select, update

from gpuq.domain.caller import Scope
from gpuq.errors import DatabaseUnavailable
from gpuq.ports.admin import Token
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.schema.tables import tokens

# Seconds: a token in steady use does not cost a write for every call.
USE_NOTED_EVERY_S = 600.0
PREFIX = "gpuq_"


_COLUMNS = tuple(tokens.c[name] for name in Token.__dataclass_fields__)


def _hash(secret: str) -> str:
    # The secret has 256 random bits, so a plain hash cannot be turned round and needs no salt.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class SqlTokens:
    """Bearer tokens: only the hash of a secret is kept."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self,
        user: str,
        name: str,
        at: float,
        *,
        uid: int | None = None,
        scope: Scope = Scope.SUBMIT,
        expires_at: float | None = None,
    ) -> tuple[int, str]:
        """The id, and the secret, which nobody can read again."""
        secret = PREFIX + secrets.token_urlsafe(32)
        row = {
            "user": user,
            "name": name,
            "hash": _hash(secret),
            "created_at": at,
            "uid": uid,
            "scope": str(scope),
            "expires_at": expires_at,
        }
        with self.database.write() as connection:
            created = connection.execute(insert(tokens).values(row).returning(tokens.c.id)).scalar_one()
        return int(created), secret

    def find(self, secret: str, at: float) -> Token | None:
        """The token of this secret unless it is revoked; one that has expired too, so that it can be told."""
        with self.database.read() as connection:
            found = connection.execute(
                select(*_COLUMNS).where(tokens.c.hash == _hash(secret), tokens.c.revoked_at.is_(None))
            ).first()
        if found is None:
            return None
        token = _token(found)
        live = token.expires_at is None or at < token.expires_at
        if live and (token.last_used_at is None or at - token.last_used_at >= USE_NOTED_EVERY_S):
            self._note_use(token.id, at)
        return token

    def _note_use(self, token_id: int, at: float) -> None:
        try:
            with self.database.write() as connection:
                connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=at))
        except DatabaseUnavailable:
            # Who may come in does not depend on whether the disk has room for this remark.
            return

    def list(self) -> list[Token]:
        """By id, the revoked ones included."""
        with self.database.read() as connection:
            return [_token(row) for row in connection.execute(select(*_COLUMNS).order_by(tokens.c.id))]

    def revoke(self, token_id: int, at: float) -> bool:
        """Whether there was a live token of that id."""
        live = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        with self.database.write() as connection:
            return bool(connection.execute(live.values(revoked_at=at)).rowcount)


def _token(row: Row[Any]) -> Token:
    values = row._asdict()
    # Without a scope: made by a release that knew none, and good for all that its user may do.
    return Token(**{**values, "scope": Scope(values["scope"] or Scope.ADMIN)})
