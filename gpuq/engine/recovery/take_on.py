"""Taking a database on that is not the one the home worked with.

| step      | durable after it                       | if everything dies right after it                         |
|-----------|----------------------------------------|-----------------------------------------------------------|
| reconcile | what ran is held or completed          | still refused at a start; done again, finds less          |
| strays    | strays.json                            | still refused                                             |
| take on   | ids go on, the database's new name     | the home has the old name: still refused, and done again  |
| mark      | the home's new name for it             | done                                                      |

The new name is why a copy of either past, the lost database included, is recognised as another one from then on. A
database that another home has named meanwhile keeps that name: both homes know it then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gpuq.domain import failpoints
from gpuq.engine.context import Context
from gpuq.engine.home_mark import HomeMark
from gpuq.engine.recovery.recognise import Identity
from gpuq.engine.recovery.reconcile import Reconciled, Spec, reconcile
from gpuq.engine.strays import Strays


def take_on(
    ctx: Context,
    identity: Identity,
    mark: HomeMark,
    folders: Iterable[tuple[int, int, str]],
    spec_of: Callable[[str], Spec],
    last_job: int,
) -> Reconciled:
    """`last_job`: the highest job id that may have been given, as far as is known outside of the folders. The daemon
    must be down. Raises DatabaseUnavailable, OSError."""
    found = list(folders)
    done = reconcile(ctx, found, spec_of)
    Strays(ctx.home, ctx.launcher.alive).write(done.strays)
    last = max([last_job, *(job_id for job_id, _, _ in found)])
    named, remembered = identity.standing().installation, mark.read()
    known_elsewhere = named is not None and (remembered is None or named != remembered.installation)
    name = named if known_elsewhere and named is not None else ctx.new_token()
    standing = identity.take_on(name, last_job=last)
    failpoints.point("mark.taken_on")
    assert standing.installation is not None
    mark.take(standing.installation, standing)
    return done
