"""SQL that a person writes: who may ask, and the answer."""

from __future__ import annotations

from typing import IO

from gpuq.domain.caller import Caller
from gpuq.engine.context import QueryContext
from gpuq.errors import Forbidden


def ask(ctx: QueryContext, caller: Caller, sql: str, limit: int | None) -> IO[bytes]:
    """The answer as JSON in a file, the caller's to close; see `gpuq.ports.history.History.ask`.

    Raises Forbidden where the database cannot hold a question to the views: then it is for administrators alone."""
    if not (caller.admin or ctx.history.open_to_everybody()):
        raise Forbidden(
            f"{caller.user} may not ask PostgreSQL: questions would read all that the daemon's login may read",
            hint="an administrator runs `gpuq db reporter`, which makes a login that may read the views alone, and sets"
            " GPUQ_REPORT_DATABASE_URL; `gpuq report` works as it is",
        )
    return ctx.history.ask(sql, limit=limit)
