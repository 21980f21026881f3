"""Who asks. On the Unix socket the caller is the peer's uid; over TCP the user of a bearer token, on loopback
too. Nothing in a request's body, path or other headers can name the caller."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.types import Scope as Request

from gpuq.domain.caller import Caller, Scope
from gpuq.domain.times import iso
from gpuq.engine.access import require_account
from gpuq.engine.context import Context
from gpuq.errors import Forbidden, Unauthenticated
from gpuq.ports.admin import Token, WebSession
from gpuq.server.http.peer import EXTENSION, Peer

_HINT = (
    "send the header `Authorization: Bearer TOKEN`, which the command line does with GPUQ_TOKEN;"
    " `gpuq token create` on the server's machine makes one"
)
_NEW_ONE = "`gpuq token create` on the server's machine makes a new one"
# Says nothing but that the process lives, so it is open to whoever reaches the socket.
_OPEN_PATH = "/healthz"
_NOBODY = Caller("", scope=Scope.READ)


def local_caller(ctx: Context, peer: Peer) -> Caller:
    """Who is at the other end of a Unix socket, by uid. Root, the daemon's user and GPUQ_ADMINS are administrators.

    Raises Forbidden for a uid without an account on a daemon of root's; a user namespace lends such uids to anybody.
    """
    account = ctx.accounts.of(peer.uid)
    # A name that no account can have.
    name = f"uid:{peer.uid}" if account is None else account.name
    caller = Caller(name, peer.uid, peer.gid, _is_admin(ctx, name, peer.uid))
    if account is None:
        require_account(ctx.accounts, caller)
    return caller


def _is_admin(ctx: Context, name: str, uid: int | None) -> bool:
    return uid in {0, ctx.accounts.daemon_uid} or name in ctx.settings.admin_users


def live_token(ctx: Context, secret: str) -> Token:
    """The token of this secret, of whom it was made for. Raises Unauthenticated, Forbidden."""
    now = ctx.clock.now()
    token = ctx.tokens.find(secret, now)
    if token is None:
        raise Unauthenticated("the token is unknown or revoked", hint=_HINT)
    if token.expires_at is not None and token.expires_at <= now:
        raise Unauthenticated(f"token {token.id} ({token.name}) expired at {iso(token.expires_at)}", hint=_NEW_ONE)
    if ctx.accounts.apart:
        _require_same_account(ctx, token)
    return token


def _token_caller(ctx: Context, secret: str) -> Caller:
    token = live_token(ctx, secret)
    return _scoped_caller(ctx, token.user, token.scope)


def _scoped_caller(ctx: Context, user: str, scope: Scope) -> Caller:
    account = ctx.accounts.of(user)
    uid, gid = (None, None) if account is None else (account.uid, account.gid)
    return Caller(user, uid, gid, scope is Scope.ADMIN and _is_admin(ctx, user, uid), scope)


def session_caller(ctx: Context, session: WebSession) -> Caller:
    """Whom a login on the page stands for; with no more rights than he has now. Raises Forbidden when his account is
    gone or another's."""
    if ctx.accounts.apart:
        require_account(ctx.accounts, Caller(session.user, session.uid))
    return _scoped_caller(ctx, session.user, session.scope)


def _require_same_account(ctx: Context, token: Token) -> None:
    """A token is for the account that it was made for, and for nobody who has its name later."""
    if token.uid is None and ctx.accounts.of(token.user) is not None:
        raise Forbidden(
            f"token {token.id} was made by an earlier release and is bound to no uid, so it is not known whose it is",
            hint=_NEW_ONE,
        )
    require_account(ctx.accounts, Caller(token.user, token.uid))


def _bearer(scope: Request) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, secret = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer" and secret.strip():
                return str(secret.strip())
    raise Unauthenticated("this server asks for a token", hint=_HINT)


async def authenticate(ctx: Context, scope: Request) -> Caller:
    """Raises Unauthenticated; and on a daemon of root's Forbidden for whom has no account there now."""
    peer = scope.get("extensions", {}).get(EXTENSION)
    if peer is None:
        return await run_in_threadpool(_token_caller, ctx, _bearer(scope))
    try:
        if ctx.accounts.remembers(peer.uid):
            return local_caller(ctx, peer)
        # A directory server may take its time, and nobody else is to wait for it.
        return await run_in_threadpool(local_caller, ctx, peer)
    except Forbidden:
        if scope["path"] == _OPEN_PATH:
            return _NOBODY
        raise
