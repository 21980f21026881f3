"""Starting and watching supervised attempts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Result
from gpuq.domain.oversight import Family, Sight
from gpuq.domain.proof_of_death import Evidence


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """`spec` is what the supervisor reads (see gpuq.supervise.bundle, also for the two folders of an attempt);
    `run_dir` becomes the job's own folder, and `log_path` lies in it, with `script`, if the job has one. `secrets` are
    variables that are written nowhere: they come under those of `spec`."""

    job_id: int
    number: int
    token: str
    run_dir: str
    log_path: str
    spec: dict[str, Any]
    script: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """What the supervisor of an attempt goes by, in seconds; `time_limit_s` None: no limit. `heard`: it would hear of
    others, which one that an earlier release started does not."""

    time_limit_s: float | None
    kill_grace_s: float | None
    heard: bool


class Rehearsal(Protocol):
    """A launch under way, of nothing."""

    def over(self) -> bool:
        """Whether its supervisor has come and gone. Never waits."""

    def close(self) -> str | None:
        """Ends it and clears up. What went wrong, for people; None: all went as a launch should."""


class Oversight(Protocol):
    """Looking at supervisors, and doing their work where they do not. `known`: what a supervisor reported; None: it has
    not (yet), and is found by its lock."""

    def is_well(self, known: Launched) -> bool:
        """A first, cheap look, for one of which nothing is expected now: False when it stands still, or has not reaped
        its job's main process."""

    def look(self, run_dir: str, known: Launched | None) -> Sight:
        """A close look, which also asks it whether it listens: the next one sees whether it did. Raises OSError."""

    def family(self, known: Launched) -> Family | None:
        """What lives below the supervisor; None when that has died, for then it is not to be seen any more. Any
        thread."""

    def resume(self, sight: Sight) -> None:
        """Lets the supervisor go on that was seen, if it is still that process, and its fork server."""

    def resume_fork_server(self) -> bool:
        """Lets the launcher's own fork server go on; whether it stood still."""

    def take_over(
        self, run_dir: str, token: str, known: Launched | None, *, reason: str | None, grace_s: float
    ) -> float | None:
        """Ends the attempt in place of its supervisor, which is ended with it; that is durable before anything happens.
        `reason`: of its stop, None when its main process has ended by itself; `grace_s`: what is left of the grace. To
        be called again after the returned seconds; None: no supervisor is left, and the attempt ends like any other.
        Raises OSError when the takeover cannot be written."""


class Launcher(Protocol):
    """Starts supervised attempts, and answers about them from their folders. An attempt is named by its own folder,
    `run_dir`; records in which its token does not stand are not its own. `oversight`: of its supervisors."""

    oversight: Oversight

    def warm_up(self) -> None:
        """Makes the first start as quick as the later ones. Raises OSError."""

    def start(self, order: LaunchOrder) -> int:
        """Makes the folders, takes the lock, hands lock and log to the fork server. Returns a file descriptor
        that becomes readable when the supervisor has reported (see `report`). Raises OSError; then nothing was
        started; it is `gpuq.user_files.OverQuota` when only this job's user is in the way."""

    def rehearse(self, folder: str) -> Rehearsal:
        """A whole launch without a job, in a folder of its own below `folder`. Raises OSError."""

    def report(self, fd: int) -> Launched | None:
        """What the supervisor has reported. The descriptor stays the caller's, and becomes readable again when the
        supervision of the attempt has ended. None: it ended without starting the job (the exit record, if there is
        one, says why); or it has told its end, see `told_end`. None also for a descriptor of `watch`. Raises
        OSError."""

    def told_end(self, token: str) -> Result | None:
        """The end of the attempt as its supervisor told it to `report`, because it could not write it down at once;
        None when it did not."""

    def launched(self, run_dir: str, token: str) -> Launched | None:
        """The same facts from the records, after a restart; None while the job's process has never existed."""

    def begun(self, run_dir: str) -> bool:
        """Whether a supervisor came so far that the job's program may have existed."""

    def progress(self, run_dir: str, uid: int | None) -> dict[str, Any] | None:
        """What the job of user `uid` wrote about itself in progress.json; None without it, and for anything else that
        stands there: it is never an error."""

    def alive(self, run_dir: str) -> bool:
        """By the lock, not by a PID."""

    def evidence(
        self,
        run_dir: str,
        token: str,
        launched: Launched | None,
        uid: int | None,
        family: Collection[tuple[int, int]] = (),
    ) -> Evidence:
        """All signs of life of the attempt of user `uid`, wherever its folders went; `launched`: its processes, as far
        as they are known; `family`: pid and start time of those that were seen to descend from its supervisor. Takes a
        look at every process of the machine. Raises OSError."""

    def watch(self, running: Launched) -> int | None:
        """A descriptor, to be closed by the caller, that becomes readable when the supervision of this attempt has
        ended; None when it already has, or when the kernel cannot give one."""

    def outcome(self, run_dir: str, token: str) -> Result | None:
        """What the exit record says, else what was told of the end; None when there is neither (yet). LOST, and not
        swept, when what stands there cannot be believed. Raises OSError when it cannot be known."""

    def take_spare(self, checkpoint: str, uid: int | None, gid: int | None) -> bool:
        """Puts an empty folder of this user's in the place of a checkpoint folder, if one is left of an earlier
        attempt; whether there was one."""

    def end_written(
        self, run_dir: str, token: str, launched: Launched | None, result: Result, gpus: Sequence[str]
    ) -> None:
        """SQL has committed the end of this attempt, so nobody reads its records any more: they may be removed.
        `outcome` still knows it for a long time, for a database that is restored. Never raises."""

    def request_stop(self, run_dir: str, *, reason: str, grace_s: float, signal: str | None = None) -> None:
        """Durable (a file in the records) and immediate (a nudge): also of an attempt that is not launched yet."""

    def limits(self, run_dir: str, token: str) -> AttemptLimits | None:
        """None for an attempt that is not launched yet, or whose records are lost. Raises OSError."""

    def change_limits(
        self, run_dir: str, token: str, *, time_limit_s: float | None, kill_grace_s: float | None
    ) -> None:
        """Durable and immediate as `request_stop`, also of an attempt that is not launched yet. `time_limit_s` counts
        from the start; one that is over stops the job. `kill_grace_s` None: as it was. Raises OSError."""

    def told_to_cancel(self, run_dir: str) -> bool:
        """Whether a cancel was asked for in its records, heard or not. SQL may not know of it: it takes no writes
        sometimes, and the cancel is answered all the same. Never raises."""

    def sweep(
        self,
        token: str,
        session: int | None,
        session_start: int | None = None,
        uid: int | None = None,
        seen: Collection[tuple[int, int]] = (),
    ) -> int:
        """Kills what is left of a dead attempt, identified by the token in its environment and by session (`pid` of
        Launched), which counts only with the start time of its leader (`pid_start`) or a marked process in it; and
        both only where the process is one of the job's user `uid`; and by `seen`, the PIDs and start times of processes
        that were seen to belong to it.
        Returns how many processes were found. Raises TimeoutError when some cannot be ended."""

    def close(self) -> None:
        """Lets the fork server go; running attempts go on."""
