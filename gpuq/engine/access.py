"""Who may do what: to whose job, with which priority, with which token. Decided here and nowhere else."""

from __future__ import annotations

from gpuq.domain.caller import Caller, Scope
from gpuq.domain.job import Job
from gpuq.domain.priority import Priority
from gpuq.engine.accounts import Accounts
from gpuq.errors import Forbidden

_DIRECTORY_HINT = "if accounts come from a directory server (LDAP), see whether it answers: `getent passwd NAME`"


def owns(owner: str, owner_uid: int | None, caller: Caller) -> bool:
    """Whether the caller is this user: the same name and, where both are known, the same uid. A name may be given to
    somebody else, and so may a uid."""
    return caller.user == owner and (owner_uid is None or caller.uid is None or owner_uid == caller.uid)


def may_act_on(owner: str, owner_uid: int | None, caller: Caller) -> bool:
    """Whether the caller may change what belongs to this user."""
    return caller.admin or owns(owner, owner_uid, caller)


def require_account(accounts: Accounts, caller: Caller) -> None:
    """Raises Forbidden for a caller who is nobody on this machine now, where each job runs as its submitter."""
    why = accounts.why_not(caller.user, caller.uid)
    if why is not None:
        raise Forbidden(why, hint=_DIRECTORY_HINT)


def require_owner(job: Job, caller: Caller, verb: str) -> None:
    """Raises Forbidden unless the caller owns the job or is an administrator."""
    if not may_act_on(job.user, job.uid, caller):
        raise Forbidden(
            f"job {job.id} belongs to {job.user}; {caller.user} may not {verb} it",
            hint=f"ask its owner, or an administrator of this queue{_with_a_token(caller)}",
        )


def whose_jobs(caller: Caller, user: str | None) -> str | None:
    """The user whose jobs a filter means, None for everybody's: an administrator's choice, and to anybody else his own.
    Raises Forbidden for those of somebody else."""
    if caller.admin:
        return user
    if user is not None and user != caller.user:
        raise Forbidden(
            f"these jobs belong to {user}; {caller.user} may not change them{_with_a_token(caller)}",
            hint=f"leave the user out to mean your own, or ask {user} or an administrator of this queue",
        )
    return caller.user


def require_own(job: Job, caller: Caller) -> None:
    """Raises Forbidden unless it is the caller's own job; an administrator has no right here, and root none."""
    if not owns(job.user, job.uid, caller):
        raise Forbidden(
            f"job {job.id} belongs to {job.user}; nobody else may queue it again with that user's environment",
            hint="submit a job of your own with the command that `gpuq show` names",
        )


def require_admin(caller: Caller, verb: str) -> None:
    """Raises Forbidden, with `verb` in its text, unless the caller is an administrator."""
    if not caller.admin:
        raise Forbidden(
            f"{caller.user} may not {verb}{_with_a_token(caller)}",
            hint="this is for administrators: root, the daemon's user, and those in GPUQ_ADMINS",
        )


def _with_a_token(caller: Caller) -> str:
    if caller.scope in {None, Scope.ADMIN}:
        return ""
    return f" (a token of the scope `{caller.scope}` has no rights of an administrator; that takes the scope `admin`)"


def require_scope(caller: Caller, needed: Scope) -> None:
    """Raises Forbidden for a token whose scope does not cover `needed`."""
    if caller.scope is not None and not caller.scope.covers(needed):
        raise Forbidden(
            f"this token has the scope `{caller.scope}`; what you asked for takes the scope `{needed}`",
            hint=f"`gpuq token create --scope {needed}` on the server's machine makes such a token",
        )


def is_masters(accounts: Accounts, caller: Caller) -> bool:
    """Whether it is root or the daemon's own user, with all rights of theirs."""
    return caller.admin and caller.uid is not None and caller.uid in {0, accounts.daemon_uid}


def may_read(accounts: Accounts, owner: str, owner_uid: int | None, caller: Caller) -> bool:
    """Whether the caller may see what a job of this owner prints: the owner and root, and no administrator. Everybody
    sees that a job exists and how it fares; its output may hold anything. On a daemon that is not root's, everyone let
    in shares one account."""
    return not accounts.apart or owns(owner, owner_uid, caller) or is_masters(accounts, caller)


def require_reader(accounts: Accounts, job: Job, caller: Caller, what: str = "output") -> None:
    """Raises Forbidden for the output of another's job, or `what` else nobody but its owner and root may read."""
    if not may_read(accounts, job.user, job.uid, caller):
        raise Forbidden(f"the {what} of job {job.id} belongs to {job.user}", hint="ask its owner, or root")


def require_priority(highest: str, caller: Caller, wanted: Priority) -> None:
    """Raises Forbidden for a priority above the one that is called `highest`, unless the caller is an administrator."""
    if not caller.admin and wanted < Priority.parse(highest):
        raise Forbidden(
            f"priority {wanted.label} is for administrators; the highest for {caller.user} is {highest}",
            hint=f"ask for {highest} or lower{_with_a_token(caller)}",
        )


def require_token_rights(accounts: Accounts, caller: Caller, user: str, *, endless: bool) -> None:
    """Who may make which token: nobody with a token, everybody with an account for himself, root and the daemon's own
    user for others and without an end (`endless`). Raises Forbidden."""
    if caller.scope is not None:
        raise Forbidden(
            "a token cannot make tokens", hint="log in to the server's machine and run `gpuq token create` there"
        )
    if is_masters(accounts, caller):
        return
    if user != caller.user:
        raise Forbidden(
            f"{caller.user} may not make a token for {user}; only root may make one for somebody else",
            hint="leave the user out to make your own",
        )
    if endless:
        raise Forbidden(
            "only root may make a token that never expires", hint="say how long it is to last: `--expires 90d`"
        )
