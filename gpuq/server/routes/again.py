"""Queueing a job again: the daemon puts its submission together, so that its environment goes to nobody."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header

from gpuq.domain.job import JobView
from gpuq.engine.intake.again import again
from gpuq.engine.intake.request import Asked
from gpuq.engine.intake.submit import store
from gpuq.engine.intake.to_agent import tell
from gpuq.ports.records import JobFilter
from gpuq.server.http.dependencies import Ctx, Queries, Who
from gpuq.server.routes.jobs import listed
from gpuq.server.routes.params import JobId
from gpuq.server.routes.views import Answer

router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs/{job_id}/again",
    status_code=201,
    summary="Queue one's own job again as a new one, whatever became of it, with changes",
)
def submit_again(
    ctx: Ctx,
    queries: Queries,
    caller: Who,
    job_id: JobId,
    changes: Annotated[
        dict[str, Any],
        Body(
            description="fields of a submission; `env` and `secrets` are added to the job's own. `offered_secrets`:"
            " values for those that it had; `env_drop`: patterns of variables that it is not to have any more",
            examples=[{"gpus": 2}],
        ),
    ],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern="^[!-~]([ -~]*[!-~])?$",
            description="The same key from the same user again returns the jobs of the first request.",
        ),
    ] = None,
) -> Answer[list[JobView]]:
    """One job, or the elements of an array."""
    spec = again(ctx, job_id, caller, changes)
    # Stored as a hash, so nothing of a secret goes into it.
    told = {name: value for name, value in changes.items() if name not in {"secrets", "offered_secrets"}}
    asked = f"again {job_id} {json.dumps(told, sort_keys=True)}".encode()
    print_of = blake2b(asked, digest_size=16).hexdigest() if idempotency_key is not None else None
    done = store(ctx, Asked([spec], caller, idempotency_key, print_of))
    tell(ctx, done)
    with ctx.records.read() as reader:
        found = reader.jobs(JobFilter(ids=tuple(dict.fromkeys(done.ids))))
    return listed(queries, found)
