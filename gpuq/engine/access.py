"""Who may do what to whose job."""

from __future__ import annotations

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.errors import Forbidden


def require_owner(job: Job, caller: Caller, verb: str) -> None:
    """Raises Forbidden unless the caller owns the job or is an administrator."""
    if not caller.may_act_on(job.user):
        raise Forbidden(
            f"job {job.id} belongs to {job.user}; {caller.user} may not {verb} it",
            hint="ask its owner, or an administrator of this queue",
        )


def require_admin(caller: Caller, verb: str) -> None:
    """Raises Forbidden, with `verb` in its text, unless the caller is an administrator."""
    if not caller.admin:
        raise Forbidden(
            f"{caller.user} may not {verb}",
            hint="this is for administrators: root, the daemon's user, and those in GPUQ_ADMINS",
        )
