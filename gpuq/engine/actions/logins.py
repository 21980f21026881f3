"""Logging in on the page: a link that is good once and for a minute, or a token, gives a session."""

from __future__ import annotations

from typing import Protocol

from gpuq.domain.caller import Caller, Scope
from gpuq.engine.access import may_act_on
from gpuq.errors import Forbidden, NotFound, Unauthenticated
from gpuq.ports.admin import Token, WebSession, WebSessions
from gpuq.ports.clock import Clock

# Seconds that a link is good for, that a session lasts at most, and after which without a look it is over.
LINK_S = 60.0
SESSION_S = 7 * 86400.0
IDLE_S = 12 * 3600.0


class LoginContext(Protocol):
    """For logins."""

    @property
    def web_sessions(self) -> WebSessions: ...
    @property
    def clock(self) -> Clock: ...


def new_link(ctx: LoginContext, caller: Caller) -> str:
    """The secret of a link to the page, with the rights of whoever asks. Raises DatabaseUnavailable."""
    now = ctx.clock.now()
    ctx.web_sessions.forget(now, IDLE_S)
    return ctx.web_sessions.link(caller.user, caller.uid, caller.scope or Scope.ADMIN, now, now + LINK_S)


def by_link(ctx: LoginContext, secret: str, agent: str | None) -> str:
    """The secret of the session that a link gives, once. Raises Unauthenticated."""
    now = ctx.clock.now()
    session = ctx.web_sessions.redeem(secret, now, now + SESSION_S, agent)
    if session is None:
        raise Unauthenticated(
            "this link was used already, or is older than a minute", hint="`gpuq web` makes a new one"
        )
    return session


def by_token(ctx: LoginContext, token: Token, agent: str | None) -> str:
    """The secret of a session with the rights of a token that was looked at already; it ends with the token."""
    now = ctx.clock.now()
    ctx.web_sessions.forget(now, IDLE_S)
    until = now + SESSION_S if token.expires_at is None else min(now + SESSION_S, token.expires_at)
    return ctx.web_sessions.create(token.user, token.uid, token.scope, now, until, agent=agent, token_id=token.id)


def sessions_of(ctx: LoginContext, caller: Caller) -> list[WebSession]:
    """The live sessions that the caller may see: his own, an administrator everybody's."""
    found = ctx.web_sessions.list(ctx.clock.now(), IDLE_S)
    return [session for session in found if may_act_on(session.user, session.uid, caller)]


def end(ctx: LoginContext, session_id: int, caller: Caller) -> None:
    """Logs a browser out. Raises NotFound, Forbidden."""
    found = next((one for one in ctx.web_sessions.list(ctx.clock.now(), IDLE_S) if one.id == session_id), None)
    if found is None:
        raise NotFound(f"there is no session {session_id}", hint="`GET /sessions` lists the live ones")
    if not may_act_on(found.user, found.uid, caller):
        raise Forbidden(f"session {session_id} belongs to {found.user}", hint="ask its owner, or an administrator")
    ctx.web_sessions.end(session_id)
