"""What the agent keeps from one turn to the next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TurnState:
    """What a turn leaves to the next one. Times in monotonic seconds.

    `plan_at`: no plan before, unless something ended. `write_at`: starts are written then. `sample_at`: the GPUs are
    looked at then. `cache_stale`: somebody changed jobs or switches. `proved_tenure`: the tenure of the node for which
    the ledger is known to be whole. `db_down`: the last turn found it so, which is said in the log once, and SQL is not
    asked again before `plan_at`.
    """

    plan_at: float = 0.0
    write_at: float = 0.0
    sample_at: float = 0.0
    cache_stale: bool = False
    proved_tenure: int = -1
    db_down: bool = False
