"""What the agent keeps from one turn to the next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TurnState:
    """What a turn leaves to the next one. Times in monotonic seconds.

    `plan_at`: no plan before, unless something ended. `write_at`: starts are written then. `sample_at`: the GPUs are
    looked at then. `cache_stale`: somebody changed jobs or switches. `proved_tenure`: the tenure of the node for which
    the ledger is known to be whole. `redis_down`: the last plan found it so; said in the log once. `db_down`: likewise,
    and SQL is not asked again before `plan_at`.
    """

    plan_at: float = 0.0
    write_at: float = 0.0
    sample_at: float = 0.0
    cache_stale: bool = False
    proved_tenure: int = -1
    redis_down: bool = False
    db_down: bool = False
