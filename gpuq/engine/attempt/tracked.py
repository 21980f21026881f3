"""What the agent keeps of every attempt that lives (or may live) on this node."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gpuq.domain.job import Attempt, Job, Launched
from gpuq.domain.outcome import Result
from gpuq.domain.states import JobState
from gpuq.engine.claim.claim import Claimed
from gpuq.engine.outcome.finish import Ended
from gpuq.scheduler.snapshot import Holding


@dataclass(eq=False)
class TrackedAttempt:
    """One attempt, from claim to the commit of its end: equal to itself alone. Times in epoch seconds, memory in MiB.

    `fd` is what the agent waits on: the supervisor's report, later its pidfd; None when the kernel gave none.
    `start_recorded`: the start is written in SQL. `peak_mb`, `utilisation`: what was seen of its GPUs so far.
    `flagged_mb`: the peak with which it was last said to have outgrown its request.
    """

    job: Job
    number: int
    token: str
    gpu_uuids: tuple[str, ...]
    mem_mb: int | None
    run_dir: str
    log_path: str
    claimed_at: float
    launched: Launched | None = None
    fd: int | None = None
    start_recorded: bool = False
    stopping: bool = False
    result: Result | None = None
    peak_mb: dict[str, int] = field(default_factory=dict)
    flagged_mb: int = 0
    utilisation: list[float] = field(default_factory=list)

    @classmethod
    def of_claim(cls, claimed: Claimed) -> TrackedAttempt:
        order = claimed.order
        return cls(
            job=claimed.job,
            number=claimed.number,
            token=claimed.token,
            gpu_uuids=tuple(gpu.uuid for gpu in claimed.gpus),
            mem_mb=claimed.mem_mb,
            run_dir=order.run_dir,
            log_path=order.log_path,
            claimed_at=claimed.claimed_at,
        )

    @classmethod
    def of_record(cls, job: Job, attempt: Attempt, launched: Launched | None) -> TrackedAttempt:
        return cls(
            job=job,
            number=attempt.number,
            token=attempt.token,
            gpu_uuids=attempt.gpu_uuids,
            mem_mb=attempt.gpu_mem_mb,
            run_dir=attempt.run_dir,
            log_path=attempt.log_path,
            claimed_at=attempt.claimed_at,
            launched=launched,
            start_recorded=job.state is not JobState.STARTING and attempt.pid is not None,
            stopping=job.state is JobState.STOPPING,
            # Which of its GPUs that was on is not kept; it counts for each of them.
            peak_mb=dict.fromkeys(attempt.gpu_uuids, attempt.peak_gpu_mem_mb) if attempt.peak_gpu_mem_mb else {},
            flagged_mb=attempt.peak_gpu_mem_mb or 0,
        )

    @property
    def started_at(self) -> float:
        return self.launched.started_at if self.launched else self.claimed_at

    def reserved_mb(self, uuid: str) -> int | None:
        """Of that GPU: what was asked for, or the observed peak where that is larger; None: alone on it."""
        return None if self.mem_mb is None else max(self.mem_mb, self.peak_mb.get(uuid, 0))

    @property
    def limit_end(self) -> float | None:
        """When the supervisor will stop it for its time limit."""
        if self.job.time_limit_s is None or self.launched is None:
            return None
        return self.launched.started_at + self.job.time_limit_s

    def holding(self, expected_s: float, preemptions_last_hour: int = 0) -> Holding:
        """`expected_s`: seconds for the whole run, as known now."""
        return Holding(
            job_id=self.job.id,
            user=self.job.user,
            gpu_uuids=self.gpu_uuids,
            started_at=self.started_at,
            expected_s=expected_s,
            mem_mb=self.mem_mb,
            peak_mb=dict(self.peak_mb),
            priority=self.job.priority,
            group=self.job.group,
            array_id=self.job.array_id,
            preemptible=self.job.preemptible,
            stopping=self.stopping,
            preemptions_last_hour=preemptions_last_hour,
        )

    def ended(self, result: Result) -> Ended:
        return Ended(
            job_id=self.job.id,
            number=self.number,
            token=self.token,
            result=self._with_usage(result),
            log_path=self.log_path,
            gpus=len(self.gpu_uuids),
            launched=None if self.start_recorded else self.launched,
        )

    def _with_usage(self, result: Result) -> Result:
        """The peak is of the GPU that needed most."""
        peak = max(self.peak_mb.values(), default=None)
        mean = sum(self.utilisation) / len(self.utilisation) if self.utilisation else None
        return replace(result, peak_gpu_mem_mb=peak, avg_gpu_util=mean)
