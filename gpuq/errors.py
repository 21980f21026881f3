"""Every error that gpuq raises on purpose.

    GpuqError                    exit 1  HTTP 500
    ├── UsageError               exit 2  HTTP 422  what was asked is malformed
    │   └── ConfigError          exit 2  HTTP 500  a setting or the config file is wrong
    ├── NotFound                 exit 3  HTTP 404
    ├── Refused                  exit 4  HTTP 409  well formed, but not now or not for you
    │   ├── Forbidden            exit 4  HTTP 403  another user's job
    │   │   └── CrossOrigin      exit 4  HTTP 403  a web page of another origin asks
    │   ├── Unauthenticated      exit 4  HTTP 401  no or a wrong token
    │   ├── Misdirected          exit 4  HTTP 421  the request names another host
    │   ├── TooLarge             exit 4  HTTP 413  more at once than is taken
    │   ├── Constraint           exit 4  HTTP 422  can never run on this machine
    │   ├── QueueFull            exit 4  HTTP 503  as many jobs wait as may; try again later
    │   ├── WrongState           exit 4  HTTP 409  the job's state does not allow it
    │   ├── AlreadyRunning       exit 4  HTTP 409  a second daemon on one home or node
    │   ├── NamespaceTaken       exit 4  HTTP 409  Redis holds another installation under this namespace
    │   ├── SchemaMismatch       exit 4  HTTP 503  the database belongs to another release
    │   ├── ForeignDatabase      exit 4  HTTP 503  the database is not the one that the home worked with
    │   └── SecretsUnavailable   exit 4  HTTP 503  encrypted variables of jobs, and no key that may be used
    ├── LeaseLost                exit 1  HTTP 409  a guarded write found another owner
    │   └── NodeTaken            exit 1  HTTP 409  an agent found that another one has its node
    ├── JobFailed                exit 1            a job whose result was asked for has none
    │   ├── TimeLimit            exit 124          it ran into its time limit
    │   ├── GpuOutOfMemory       exit 1            it ran out of GPU memory
    │   ├── JobCancelled         exit 125          it was cancelled
    │   └── JobLost              exit 1            daemon, supervisor or host died too often under it
    ├── RemoteError              exit 1            what a function raised in its job and cannot be raised here
    └── Unavailable              exit 5  HTTP 503  try again later
        ├── DaemonUnreachable
        ├── DatabaseUnavailable
        └── HotStoreUnavailable                    Redis is away
            └── HotStoreCold                       Redis is there but not rebuilt from SQL

`code` is stable and machine-readable; `hint` says what to do next.
"""

from __future__ import annotations

# The stand-in for typing.TYPE_CHECKING that type checkers know: importing typing costs every command 8 ms.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class GpuqError(Exception):
    """gpuq failed. `message` is for a person, `hint` says what to do next (None: nothing to say)."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    # Of a submission's list: which item it is about, from 0.
    index: int | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(GpuqError):
    """What was asked is malformed."""

    code = "usage"
    exit_code = 2
    http_status = 422


class ConfigError(UsageError):
    """A setting or the config file is wrong."""

    code = "config"
    http_status = 500


class NotFound(GpuqError):
    """There is no such job, GPU, group or letter."""

    code = "not_found"
    exit_code = 3
    http_status = 404


class Refused(GpuqError):
    """Well formed, but not now or not for you."""

    code = "refused"
    exit_code = 4
    http_status = 409


class Forbidden(Refused):
    """It belongs to another user, or takes an administrator."""

    code = "forbidden"
    http_status = 403


class CrossOrigin(Forbidden):
    """A page of another origin made a browser ask for a change."""

    code = "cross_origin"


class Unauthenticated(Refused):
    """No token, or a wrong one."""

    code = "unauthenticated"
    http_status = 401


class Misdirected(Refused):
    """The request was meant for a host that this server is not."""

    code = "misdirected"
    http_status = 421


class TooLarge(Refused):
    """More than is taken at once."""

    code = "too_large"
    http_status = 413


class Constraint(Refused):
    """It can never run on this machine."""

    code = "constraint"
    http_status = 422


class QueueFull(Refused):
    """As many jobs wait as may. `retry_after_s`: when there may be room again, if somebody worked that out."""

    code = "queue_full"
    http_status = 503
    retry_after_s: float | None = None


class WrongState(Refused):
    """The job's state does not allow it."""

    code = "wrong_state"


class AlreadyRunning(Refused):
    """Another process already does what this one would do alone."""

    code = "already_running"


class NamespaceTaken(Refused):
    """The namespace of Redis belongs to another installation."""

    code = "namespace_taken"


class SchemaMismatch(Refused):
    """The schema of the database is not the one that this version works with."""

    code = "schema_mismatch"
    http_status = 503


class ForeignDatabase(Refused):
    """The database is older than the home, or another one's."""

    code = "foreign_database"
    http_status = 503


class SecretsUnavailable(Refused):
    """The key of encrypted variables is not the right one, or cannot be read, trusted or made."""

    code = "secrets_unavailable"
    http_status = 503


class LeaseLost(GpuqError):
    """A write named an attempt (job, number, token, expected state) that is no longer the live one."""

    code = "lease_lost"
    http_status = 409


class NodeTaken(LeaseLost):
    """Another agent serves the node: this one may give nothing."""

    code = "node_taken"


class JobFailed(GpuqError):
    """A job did not end as it should. `job_id`, `outcome`; `exit_code` as `gpuq run` has it: the job's own, 128 + N
    for signal N."""

    code = "job_failed"
    job_id: int | None = None
    outcome: str | None = None


class TimeLimit(JobFailed):
    """The job ran into its time limit."""

    code = "job_time_limit"
    exit_code = 124


class GpuOutOfMemory(JobFailed):
    """The job ran out of GPU memory."""

    code = "job_gpu_oom"


class JobCancelled(JobFailed):
    """The job was cancelled."""

    code = "job_cancelled"
    exit_code = 125


class JobLost(JobFailed):
    """Daemon, supervisor or host died under the job, too often to go on."""

    code = "job_lost"


class RemoteError(GpuqError):
    """A function raised what cannot travel: its type and text, with the traceback from there as the cause."""

    code = "remote"


class Unavailable(GpuqError):
    """Try again later: the daemon, its database or Redis is away."""

    code = "unavailable"
    exit_code = 5
    http_status = 503


class DaemonUnreachable(Unavailable):
    """No daemon answers, or the connection to it broke."""

    code = "daemon_unreachable"


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, is full, or stays locked."""

    code = "database_unavailable"


class HotStoreUnavailable(Unavailable):
    """Redis cannot be reached or cannot write."""

    code = "hot_store_unavailable"


class HotStoreCold(HotStoreUnavailable):
    """Redis answers, but the queue has not been read back from SQL under the expected epoch."""

    code = "hot_store_cold"
