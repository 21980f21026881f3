"""Looking after the installation: health, figures, reports, tokens, and the way down."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gpuq.domain.caller import Caller, Scope
from gpuq.domain.times import iso
from gpuq.engine.access import may_act_on, require_account, require_admin, require_token_rights
from gpuq.engine.queries import health, reports
from gpuq.errors import Forbidden, NotFound, Refused
from gpuq.observe import metrics
from gpuq.ports.admin import Token
from gpuq.server.http.dependencies import Ctx, Queries, Who
from gpuq.server.routes import metrics_source, params
from gpuq.server.routes.params import Moment
from gpuq.server.routes.questions import PLACES
from gpuq.server.routes.views import (
    Answer,
    HealthView,
    NewTokenView,
    ReadyView,
    RevokedView,
    StatsView,
    StoppingView,
    TableView,
    TokenView,
    WhoamiView,
)

router = APIRouter(tags=["administration"])

YEAR_S = 365 * 86400.0
MAX_TOKEN_S = 10 * YEAR_S
_ACCOUNT = r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?$"


class NewToken(BaseModel):
    """The token that is asked for. `user`: the caller, unless given. `scope`: `submit` unless given, and `admin` on a
    daemon that is not root's. `expires_in_s`: seconds, or `never`, for root alone."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    user: Annotated[str, Field(pattern=_ACCOUNT)] | None = None
    scope: Scope | None = None
    expires_in_s: Annotated[float, Field(gt=0, le=MAX_TOKEN_S, strict=True)] | Literal["never"] = YEAR_S


class Shutdown(BaseModel):
    """`stop_jobs`: end running jobs first."""

    model_config = ConfigDict(extra="forbid")

    stop_jobs: Annotated[bool, Field(strict=True)] = False


@router.get("/whoami", summary="Whom the daemon takes the caller for")
async def whoami(caller: Who) -> Answer[WhoamiView]:
    return {"user": caller.user, "uid": caller.uid, "admin": caller.admin}


@router.get("/healthz", summary="Answers while the process lives")
def healthz(ctx: Ctx) -> Answer[HealthView]:
    return cast(HealthView, health.healthz(ctx))


@router.get(
    "/readyz",
    summary="Whether database, Redis and agent do their work",
    responses={200: {"model": ReadyView}, 503: {"description": "not ready", "model": ReadyView}},
)
def readyz(ctx: Ctx, queries: Queries) -> Response:
    state = health.readyz(ctx, queries.agent)
    return JSONResponse(state, status_code=200 if state["ready"] else 503)


@router.get("/stats", summary="Figures of the queue")
def stats(ctx: Ctx) -> Answer[StatsView]:
    return cast(StatsView, health.stats(ctx))


@router.get("/metrics", response_class=PlainTextResponse, summary="For Prometheus")
def show_metrics(request: Request, ctx: Ctx, queries: Queries) -> Response:
    page = metrics.render(metrics_source.of(ctx, request.app.state.agent, queries))
    return Response(page, headers={"Content-Type": metrics.CONTENT_TYPE})


_GROUPING = "^({0})(,({0}))*$".format("|".join(reports.GROUPINGS))


@router.get("/report/{kind}", summary="usage, waits, failures or utilization as a table")
def report(
    ctx: Ctx,
    caller: Who,
    kind: Annotated[str, Path(json_schema_extra={"enum": list(reports.KINDS)})],
    by: Annotated[
        str,
        Query(
            description="user, group, gpu or day; several with commas between (of utilization: one)",
            json_schema_extra={"pattern": _GROUPING, "examples": ["user,day"]},
        ),
    ] = "user",
    since: Moment = None,
    until: Moment = None,
) -> Answer[TableView]:
    start, end = params.moment("since", since), params.moment("until", until)
    with PLACES.asking(caller.user):
        found = _table(*reports.report(ctx, kind, by, start, end))
        ctx.records.spare_memory()
        return found


def _table(columns: list[str], rows: list[tuple[Any, ...]]) -> TableView:
    return {"columns": columns, "rows": [[_plain(value) for value in row] for row in rows]}


def _plain(value: Any) -> Any:
    """JSON has no infinity, and nothing that is not a number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@router.get("/tokens", summary="Access tokens, without their secrets")
def list_tokens(ctx: Ctx, caller: Who) -> Answer[list[TokenView]]:
    return [_token(row) for row in ctx.tokens.list() if may_act_on(row.user, row.uid, caller)]


@router.post("/tokens", status_code=201, summary="A new token; its secret is shown this once")
def create_token(ctx: Ctx, caller: Who, wanted: NewToken) -> Answer[NewTokenView]:
    user = wanted.user or caller.user
    endless = wanted.expires_in_s == "never"
    require_token_rights(ctx.accounts, caller, user, endless=endless)
    account = ctx.accounts.of(user)
    uid = None if account is None else account.uid
    require_account(ctx.accounts, Caller(user, uid))
    # Elsewhere every token is a login as the one user whose daemon it is.
    scope = wanted.scope or (Scope.SUBMIT if ctx.accounts.apart else Scope.ADMIN)
    now = ctx.clock.now()
    expires_at = None if wanted.expires_in_s == "never" else now + wanted.expires_in_s
    token_id, secret = ctx.tokens.create(user, wanted.name, now, uid=uid, scope=scope, expires_at=expires_at)
    return {
        "id": token_id,
        "user": user,
        "name": wanted.name,
        "scope": scope,
        "expires_at": iso(expires_at),
        "token": secret,
    }


@router.delete("/tokens/{token_id}", summary="Revoke a token")
def revoke_token(ctx: Ctx, caller: Who, token_id: params.JobId) -> Answer[RevokedView]:
    row = next((row for row in ctx.tokens.list() if row.id == token_id), None)
    if row is None:
        raise NotFound(f"there is no token {token_id}", hint="`gpuq token list` shows them")
    if not may_act_on(row.user, row.uid, caller):
        raise Forbidden(f"token {token_id} belongs to {row.user}", hint="ask its owner, or an administrator")
    ctx.tokens.revoke(token_id, ctx.clock.now())
    ctx.web_sessions.end_of_token(token_id)
    return {"id": token_id, "revoked": True}


def _token(row: Token) -> TokenView:
    return {
        "id": row.id,
        "name": row.name,
        "user": row.user,
        "scope": row.scope,
        "created_at": iso(row.created_at),
        "expires_at": iso(row.expires_at),
        "revoked_at": iso(row.revoked_at),
        "last_used_at": iso(row.last_used_at),
    }


@router.post("/shutdown", status_code=202, summary="Stop the daemon; running jobs go on unless told otherwise")
async def shutdown(request: Request, caller: Who, wanted: Shutdown | None = None) -> Answer[StoppingView]:
    require_admin(caller, "stop the daemon")
    stop = request.app.state.on_shutdown
    if stop is None:
        raise Refused("no daemon runs here: this call works straight on the database")
    stop_jobs = wanted is not None and wanted.stop_jobs
    stop(stop_jobs)
    return {"stopping": True, "stop_jobs": stop_jobs}
