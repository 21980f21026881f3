"""What a route may ask for in its signature: the stores, the caller, and the answers about jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from gpuq.domain.caller import Caller
from gpuq.engine.context import Context
from gpuq.engine.queries.job_queries import JobQueries


async def _context(request: Request) -> Context:
    ctx: Context = request.app.state.ctx
    return ctx


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _queries(request: Request) -> JobQueries:
    queries: JobQueries = request.app.state.queries
    return queries


Ctx = Annotated[Context, Depends(_context)]
Queries = Annotated[JobQueries, Depends(_queries)]
Who = Annotated[Caller, Depends(_caller)]
