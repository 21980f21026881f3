"""Who asks. On the Unix socket the caller is the peer's uid; over TCP the user of a bearer token, on loopback
too. Nothing in a request's body, path or other headers can name the caller."""

from __future__ import annotations

import os
import pwd
from functools import lru_cache

from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.engine.context import Context
from gpuq.errors import Forbidden, Unauthenticated
from gpuq.server.http.peer import EXTENSION, Peer

_HINT = "send the header `Authorization: Bearer TOKEN`; `gpuq token create` on the server's machine makes one"


@lru_cache(maxsize=1024)
def _account_name(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name


def user_name(uid: int) -> str:
    """The account's name, or `uid:1234` for a uid without one (a name that no account can have)."""
    try:
        return _account_name(uid)
    except KeyError:
        return f"uid:{uid}"


def daemon_uid() -> int:
    """Whose daemon this is: root's keeps users apart."""
    return os.geteuid()


def local_caller(ctx: Context, peer: Peer) -> Caller:
    """Who is at the other end of a Unix socket, by uid. Root, the daemon's user and GPUQ_ADMINS are administrators."""
    name = user_name(peer.uid)
    admin = peer.uid in {0, daemon_uid()} or name in ctx.settings.admin_users
    return Caller(name, peer.uid, peer.gid, admin)


def require_account(user: str) -> None:
    """Raises Forbidden for a name without an account here, where each job runs as its submitter: nobody could say as
    whom a job of that name is to run."""
    if daemon_uid() != 0:
        return
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise Forbidden(
            f"{user} has no account on this machine", hint="jobs run as their submitters; ask whoever looks after it"
        ) from None


def _token_caller(ctx: Context, user: str) -> Caller:
    require_account(user)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return Caller(user, admin=user in ctx.settings.admin_users)
    return local_caller(ctx, Peer(pid=0, uid=account.pw_uid, gid=account.pw_gid))


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, secret = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer" and secret.strip():
                return str(secret.strip())
    raise Unauthenticated("this server asks for a token", hint=_HINT)


async def authenticate(ctx: Context, scope: Scope) -> Caller:
    """Raises Unauthenticated, and Forbidden for a token of a name without an account on a daemon of root's."""
    peer = scope.get("extensions", {}).get(EXTENSION)
    if peer is not None:
        return local_caller(ctx, peer)
    user = await run_in_threadpool(ctx.tokens.find, _bearer(scope), ctx.clock.now())
    if user is None:
        raise Unauthenticated("the token is unknown or revoked", hint=_HINT)
    return await run_in_threadpool(_token_caller, ctx, user)


def may_read(owner: str, caller: Caller) -> bool:
    """Whether the caller may see what a job prints. Everybody sees that a job exists and how it fares; its output
    may hold anything. On a daemon that is not root's, everyone let in shares one account."""
    return daemon_uid() != 0 or caller.may_act_on(owner)


def require_reader(job: Job, caller: Caller) -> None:
    """Raises Forbidden for the output of another's job."""
    if not may_read(job.user, caller):
        raise Forbidden(
            f"the output of job {job.id} belongs to {job.user}", hint="ask its owner, or an administrator of this queue"
        )
