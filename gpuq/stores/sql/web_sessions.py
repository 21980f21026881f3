"""Logins on the page: the browser's secret is never stored, only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from gpuq.domain.caller import Scope
from gpuq.errors import DatabaseUnavailable
from gpuq.ports.admin import WebSession
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.schema.web_sessions import web_sessions

# Seconds: a page that stands open does not cost a write for every look.
USE_NOTED_EVERY_S = 600.0
# What the browser says of itself, at most so much of it.
MAX_AGENT = 200

_COLUMNS = tuple(web_sessions.c[name] for name in WebSession.__dataclass_fields__)


def _hash(secret: str) -> str:
    # The secret has 256 random bits, so a plain hash cannot be turned round and needs no salt.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class SqlWebSessions:
    """See `gpuq.ports.admin.WebSessions`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def link(self, user: str, uid: int | None, scope: Scope, at: float, expires_at: float) -> str:
        return self._add("link", user, uid, scope, at, expires_at, None, None)

    def redeem(self, secret: str, at: float, expires_at: float, agent: str | None) -> str | None:
        gone = (
            delete(web_sessions)
            .where(web_sessions.c.hash == _hash(secret), web_sessions.c.kind == "link", web_sessions.c.expires_at > at)
            .returning(web_sessions.c.user, web_sessions.c.uid, web_sessions.c.scope)
        )
        # One transaction: a link is used up by the session that it gives, and by nothing else.
        with self.database.write() as connection:
            found = connection.execute(gone).first()
            if found is None:
                return None
            mine, row = self._row("session", found.user, found.uid, Scope(found.scope), at, expires_at, agent, None)
            connection.execute(insert(web_sessions).values(row))
        return mine

    def create(
        self,
        user: str,
        uid: int | None,
        scope: Scope,
        at: float,
        expires_at: float,
        *,
        agent: str | None = None,
        token_id: int | None = None,
    ) -> str:
        return self._add("session", user, uid, scope, at, expires_at, agent, token_id)

    def _add(self, kind: str, *fields: Any) -> str:
        secret, row = self._row(kind, *fields)
        with self.database.write() as connection:
            connection.execute(insert(web_sessions).values(row))
        return secret

    @staticmethod
    def _row(
        kind: str,
        user: str,
        uid: int | None,
        scope: Scope,
        at: float,
        expires_at: float,
        agent: str | None,
        token_id: int | None,
    ) -> tuple[str, dict[str, Any]]:
        secret = secrets.token_urlsafe(32)
        row = {
            "kind": kind,
            "hash": _hash(secret),
            "user": user,
            "uid": uid,
            "scope": str(scope),
            "created_at": at,
            "seen_at": at,
            "expires_at": expires_at,
            "agent": None if agent is None else agent[:MAX_AGENT],
            "token_id": token_id,
        }
        return secret, row

    def find(self, secret: str, at: float, idle_s: float) -> WebSession | None:
        with self.database.read() as connection:
            found = connection.execute(select(*_COLUMNS).where(*self._live(at, idle_s), self._is(secret))).first()
        if found is None:
            return None
        session = _session(found)
        if at - session.seen_at >= USE_NOTED_EVERY_S:
            self._note_use(session.id, at)
        return session

    @staticmethod
    def _is(secret: str) -> Any:
        return web_sessions.c.hash == _hash(secret)

    @staticmethod
    def _live(at: float, idle_s: float) -> tuple[Any, ...]:
        columns = web_sessions.c
        return columns.kind == "session", columns.expires_at > at, columns.seen_at > at - idle_s

    def _note_use(self, session_id: int, at: float) -> None:
        try:
            with self.database.write() as connection:
                connection.execute(update(web_sessions).where(web_sessions.c.id == session_id).values(seen_at=at))
        except DatabaseUnavailable:
            # Who may come in does not depend on whether the disk has room for this remark.
            return

    def list(self, at: float, idle_s: float) -> list[WebSession]:
        with self.database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS).where(*self._live(at, idle_s)).order_by(web_sessions.c.id)
            ).fetchall()
        return [_session(row) for row in rows]

    def end(self, session_id: int) -> bool:
        return self._delete(web_sessions.c.id == session_id, web_sessions.c.kind == "session")

    def log_out(self, secret: str) -> bool:
        return self._delete(self._is(secret), web_sessions.c.kind == "session")

    def end_of_token(self, token_id: int) -> bool:
        return self._delete(web_sessions.c.token_id == token_id)

    def forget(self, at: float, idle_s: float) -> bool:
        columns = web_sessions.c
        return self._delete((columns.expires_at <= at) | (columns.seen_at <= at - idle_s))

    def _delete(self, *where: Any) -> bool:
        with self.database.write() as connection:
            return bool(connection.execute(delete(web_sessions).where(*where)).rowcount)


def _session(row: Row[Any]) -> WebSession:
    values = row._asdict()
    return WebSession(**{**values, "scope": Scope(values["scope"])})
