"""What the scheduler is shown: everything it may know, as plain values.

Times are epoch seconds (virtual seconds in a simulation), memory MiB. Nothing here knows a clock or a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gpuq.domain.limits import LimitBook
from gpuq.domain.priority import Priority, Ranking
from gpuq.domain.reasons import Reason
from gpuq.domain.window import Window
from gpuq.scheduler.spread import Span


@dataclass(frozen=True, slots=True)
class Candidate:
    """A `queued` job. `expected_s` is how long it is expected to run; reservations use it, the order does not.
    `over_hours`: why it comes behind all others (its GPU-hours are used up); it is `preemptible` then."""

    id: int
    score: float
    priority: Priority
    user: str
    gpus: int
    expected_s: float
    group: str | None = None
    gpu_mem_mb: int | None = None
    gpu_model: str | None = None
    gpu_ids: tuple[int, ...] | None = None
    time_limit_s: float | None = None
    preemptible: bool = False
    array_id: int | None = None
    array_limit: int | None = None
    submitted_at: float = 0.0
    preemptions_last_hour: int = 0
    uid: int | None = None
    over_hours: str | None = None


Longest = Callable[[Candidate], float]


@dataclass(frozen=True, slots=True)
class Holding:
    """A live attempt: what it holds from lease to end. `mem_mb` None: each GPU alone.

    `expected_s` is the expectation for the whole run; an overrun is expected to last as long again.
    `started_at` is the time of the claim until the supervisor has reported the process. `span`: how short and how long
    the whole run may be, in seconds, where a forecast wants it.
    """

    job_id: int
    user: str
    gpu_uuids: tuple[str, ...]
    started_at: float
    expected_s: float
    mem_mb: int | None = None
    peak_mb: Mapping[str, int] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    group: str | None = None
    array_id: int | None = None
    preemptible: bool = False
    stopping: bool = False
    preemptions_last_hour: int = 0
    over_hours: bool = False
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU. `unavailable` is the reason why nothing new may start on it (drained, unhealthy, external), or None.
    `unaccounted_mb`: memory in use now beyond what its shares reserve. `node`: a job's GPUs are all on one node; live,
    there is only this one."""

    uuid: str
    index: int
    memory_mb: int
    model: str = ""
    numa_node: int | None = None
    links: Mapping[str, int] = field(default_factory=dict)
    unavailable: Reason | None = None
    unaccounted_mb: int = 0
    node: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of 0 are no limit. `group_limits`: running jobs per group. `ranking`: the rule that gave the jobs their
    scores. `no_account`: why nothing of these users, with the uid that they had, may start now. `limits`: what was set
    of users and groups meanwhile, before which the others yield. `over_users` and `over_groups`: whose jobs come behind
    all others, and the sentence why."""

    backfill: Literal["easy", "greedy", "none"] = "easy"
    cpu_jobs: int = 0
    user_max_gpus: int = 0
    user_max_running: int = 0
    group_limits: Mapping[str, int] = field(default_factory=dict)
    preempt_min_run_s: float = 300.0
    preempt_max_per_hour: int = 2
    ranking: Ranking = field(default_factory=Ranking)
    no_account: Mapping[tuple[str, int | None], str] = field(default_factory=dict)
    limits: LimitBook = field(default_factory=LimitBook)
    over_users: Mapping[str, str] = field(default_factory=dict)
    over_groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`waiting` is in line order (score, then id) and may be cut: the first jobs of every GPU count, which are
    all that can start now. `paused` is the reason text while no job may start. `expected` gives a candidate's
    run time in seconds only when a decision needs it; None: the candidates' own `expected_s`. `promises`: the
    `reserved_at` that earlier plans gave, by job id; None when nobody keeps them, and reservations have no slack.
    `window`: the planned drain. `longest`: the seconds after which a candidate is over as far as is known, inf where it
    is not; None: its time limit. `span`: how short and how long a candidate's run time may be, for forecasts; None:
    exactly as expected."""

    devices: Sequence[Device]
    holdings: Sequence[Holding]
    waiting: Sequence[Candidate]
    policy: Policy = Policy()
    paused: str | None = None
    expected: Callable[[Candidate], float] | None = None
    promises: Mapping[int, float] | None = None
    window: Window | None = None
    longest: Longest | None = None
    span: Callable[[Candidate], Span | None] | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Start this job on exactly these GPUs (empty for a job without), in this order."""

    job_id: int
    gpu_uuids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preempt:
    """Ask this running job to yield to `beneficiary`."""

    job_id: int
    beneficiary: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Why this candidate does not start now. `reserved_at`: when the first in line has its GPUs, if it is that."""

    job_id: int
    reason: Reason
    reserved_at: float | None = None


Action = Start | Preempt | Wait
