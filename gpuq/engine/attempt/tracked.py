"""What the agent keeps of every attempt that lives (or may live) on this node."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gpuq.domain.job import Attempt, Job, Launched
from gpuq.domain.outcome import Result
from gpuq.domain.states import JobState
from gpuq.ports.history import FinishedRun
from gpuq.ports.launcher import Launcher, LaunchOrder
from gpuq.scheduler.snapshot import Holding
from gpuq.scheduler.spread import Span


@dataclass(eq=False)
class TrackedAttempt:
    """One attempt, from claim to the commit of its end: equal to itself alone. Times in epoch seconds, memory in MiB.

    `order`: how to launch it, from the claim to the launch; None for one that was read back from its record.
    `fd` is what the agent waits on: the supervisor's report, later its pidfd; None when the kernel gave none.
    `start_recorded`: the start is written in SQL. `result`: how it ended, as soon as that is known;
    `cancelled`: it was told to stop for a cancel, of which SQL may not know. `failed_alone`: how often in a row its job
    could not be launched while others could; 0 where that may be the machine's fault.
    `doubt`: why it is not taken for dead although its supervision is over, or what goes wrong with it alone; a text for
    people, `doubt_told` the one that they were told. `ask_at`: not looked after before, monotonic seconds, because what
    failed just now would fail again.
    `peak_mb`, `utilisation`: what was seen of its GPUs so far; `busy_at`: when one of them was last seen at work, or
    first looked at. `idle_told`: people were told that they stand still; None: not known yet. `flagged_mb`: the peak
    with which it was last said to have outgrown its request. `grouped`: a control group holds all its
    processes; else `family` is what was last noted of them (see families.py), None for nothing yet. `limits_changed`:
    its limits are, or may be, others than at its launch; `limits_untold`: its supervisor is to be told them (again).
    """

    job: Job
    number: int
    token: str
    gpu_uuids: tuple[str, ...]
    mem_mb: int | None
    run_dir: str
    log_path: str
    claimed_at: float
    order: LaunchOrder | None = None
    launched: Launched | None = None
    fd: int | None = None
    start_recorded: bool = False
    stopping: bool = False
    result: Result | None = None
    cancelled: bool = False
    failed_alone: int = 0
    doubt: str | None = None
    doubt_told: str | None = None
    ask_at: float = 0.0
    peak_mb: dict[str, int] = field(default_factory=dict)
    flagged_mb: int = 0
    utilisation: list[float] = field(default_factory=list)
    busy_at: float | None = None
    idle_told: bool | None = None
    grouped: bool = False
    family: list[tuple[int, int]] | None = None
    limits_changed: bool = False
    limits_untold: bool = False

    @classmethod
    def of_record(cls, job: Job, attempt: Attempt, launched: Launched | None) -> TrackedAttempt:
        """An attempt that SQL knows, as an agent that was started anew takes it over; `launched` None: no report
        was found."""
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

    def take_changes(self, job: Job) -> None:
        """What people changed of the job since the attempt began; `job` as SQL has it now."""
        self.limits_changed = self.limits_changed or job.time_limit_s != self.job.time_limit_s
        changed = {name: getattr(job, name) for name in ("name", "group", "priority", "time_limit_s", "score")}
        self.job = replace(self.job, **changed)

    def holding(self, expected_s: float, preemptions_last_hour: int = 0, span: Span | None = None) -> Holding:
        """`expected_s`: seconds for the whole run, as known now; `span`: how short and how long it may be."""
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
            span=span,
        )

    @property
    def unrecorded_start(self) -> Launched | None:
        """Of a process that runs, or ran, and of which SQL does not know yet."""
        return None if self.start_recorded else self.launched

    @property
    def unrecorded_limit(self) -> float | None:
        """When it is to be shown as stopped for its time limit; None once it is being stopped, and before its start is
        written, because that comes first."""
        return self.limit_end if self.start_recorded and not self.stopping else None

    def result_with_usage(self) -> Result:
        """How it ended, with what was seen of its GPUs; the peak is of the one that needed most. To be asked only once
        `result` is set."""
        assert self.result is not None
        peak = max(self.peak_mb.values(), default=None)
        mean = sum(self.utilisation) / len(self.utilisation) if self.utilisation else None
        return replace(self.result, peak_gpu_mem_mb=peak, avg_gpu_util=mean)

    def let_go_of_records(self, launcher: Launcher) -> None:
        """To be called once its end is committed."""
        if self.result is not None:
            launcher.end_written(self.run_dir, self.token, self.launched, self.result, self.gpu_uuids)

    def finished_run(self) -> FinishedRun | None:
        """What later jobs of its kind are expected by; None when it never ran or its end is not known exactly."""
        result = self.result
        if result is None or result.started_at is None or result.finished_at is None:
            return None
        return FinishedRun(
            job_id=self.job.id,
            user=self.job.user,
            gpus=self.job.gpus,
            command=self.job.command,
            time_limit_s=self.job.time_limit_s,
            outcome=result.outcome,
            run_s=max(0.0, result.finished_at - result.started_at),
            finished_at=result.finished_at,
        )


def recorded(attempt: Attempt) -> Launched | None:
    """What SQL says of its processes; None while that was not written."""
    if attempt.pid is None or attempt.supervisor_pid is None or attempt.started_at is None:
        return None
    return Launched(
        supervisor_pid=attempt.supervisor_pid,
        supervisor_start=attempt.supervisor_start or 0,
        pid=attempt.pid,
        pid_start=attempt.pid_start or 0,
        started_at=attempt.started_at,
    )
