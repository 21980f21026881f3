"""From a supervisor to the job's own program: everything between fork and exec."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable, Mapping, Sequence

from gpuq.supervise import bundle, isolation, kernel, resource_limits

_DEFAULT_UMASK = 0o022
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
# Between fork and exec these would run the supervisor's handlers in the child, and be lost. Every other signal with
# a handler may be: the exec sets it back to its default, and nothing is ignored.
_STOPPING_SIGNALS = (int(signal.SIGTERM), int(signal.SIGINT), int(signal.SIGHUP))
# Before a sentence of the child: the job is not to be charged for it.
MACHINE_FAULT = b"\0"
_SIGKILL = int(signal.SIGKILL)
# Of posix_spawn: the machine has no process or no memory for one, whatever the program.
_NO_PROCESS = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE)


class AttemptSpec:
    """`spec.json` as the supervisor needs it, and variables that stand nowhere, which come under its own. Raises
    ValueError for one that cannot be run."""

    def __init__(self, record: dict[str, object], secrets: Mapping[str, str] | None = None) -> None:
        self.token = str(record.get("token", ""))
        self.argv = _texts(record.get("argv"))
        env = record.get("env")
        if not self.argv or not isinstance(env, dict):
            raise ValueError("the spec names no program or no environment")
        self.env = {**(secrets or {}), **{str(name): str(value) for name, value in env.items()}}
        self.cwd = str(record.get("cwd") or "/")
        self.user = str(record.get("user") or "")
        self.uid = _whole(record.get("uid"))
        self.gid = _whole(record.get("gid"))
        umask = _whole(record.get("umask"))
        self.hide_devices = _texts(record.get("hide_devices"))
        self.umask = _DEFAULT_UMASK if umask is None else umask & 0o777
        self.limits = resource_limits.of_record(record.get("limits"))
        self.nice = _whole(record.get("nice"))
        self.time_limit_s = _seconds(record.get("time_limit_s"))
        self.max_output_bytes = _whole(record.get("max_output_bytes"))
        self.max_result_bytes = _whole(record.get("max_result_bytes"))
        self.checkpoint_dir = str(record.get("checkpoint_dir") or "")
        grace = _seconds(record.get("kill_grace_s"))
        self.kill_grace_s = 30.0 if grace is None else grace
        notice = record.get("signal")
        notice = notice if isinstance(notice, dict) else {}
        self.notice = signal_number(notice.get("name"))
        self.notice_before_s = _seconds(notice.get("before_s")) or 0.0


def signal_number(name: object) -> int | None:
    """From `USR1` or `SIGUSR1`; None for anything that is no signal here."""
    if not isinstance(name, str):
        return None
    found = getattr(signal, "SIG" + name.upper().removeprefix("SIG"), None)
    return int(found) if isinstance(found, signal.Signals) else None


class CannotRun(Exception):
    """Its text is the sentence that the submitter reads."""


def spawn(spec: AttemptSpec, log_fd: int) -> tuple[int, int]:
    """Starts the job. Returns its PID, which is its session and its process group too, and -1 or the descriptor of a
    pipe that ends empty once the program runs, or holds a sentence saying why it could not be run, with MACHINE_FAULT
    before it where that is no fault of the job's.

    Raises CannotRun with that sentence when it is known at once, and OSError when no process can be made.
    """
    require_identity(spec)
    wanted = resource_limits.changes(spec.limits)
    as_ourselves = (spec.uid is None or spec.uid == os.geteuid()) and not spec.hide_devices
    if as_ourselves and resource_limits.can_be_lent(wanted) and not resource_limits.is_nicer(spec.nice):
        return _spawn_as_ourselves(spec, log_fd, wanted), -1
    return _fork(spec, log_fd)


def _spawn_as_ourselves(spec: AttemptSpec, log_fd: int, wanted: Sequence[resource_limits.Change]) -> int:
    """By posix_spawn, which lends the child our memory until its exec: a fork copies the page tables and then, one by
    one, every page that either of the two touches, at three times the cost. What it cannot set for the child we
    take on ourselves for the moment: the umask, the working directory and limits."""

    def start(path: str) -> int:
        # 0 is /dev/null already, by the fork server; everything above 2 closes itself at the exec.
        to_log = [(os.POSIX_SPAWN_DUP2, log_fd, 1), (os.POSIX_SPAWN_DUP2, log_fd, 2)]
        return os.posix_spawn(path, spec.argv, spec.env, file_actions=to_log, setsid=True, setsigmask=())

    own_umask = os.umask(spec.umask)
    try:
        _enter(spec.cwd)
        if not wanted:
            return _execute(spec, start)
        with resource_limits.lent(wanted):
            return _execute(spec, start)
    finally:
        os.chdir("/")
        os.umask(own_umask)


def _fork(spec: AttemptSpec, log_fd: int) -> tuple[int, int]:
    """For a job of another user, with devices to hide, nicer or with narrow limits: only a child of our own making can
    change what it is."""
    supervisor = os.getpid()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    kernel.block_exactly(_STOPPING_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _become_the_job(spec, log_fd, write_end, supervisor)
    except OSError:
        os.close(read_end)
        raise
    finally:
        kernel.block_exactly(())
        os.close(write_end)
    return pid, read_end


def _become_the_job(spec: AttemptSpec, log_fd: int, error_fd: int, supervisor: int) -> None:
    """Runs in the child and never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for signum in _STOPPING_SIGNALS:
            kernel.default_action(signum)
        os.setsid()
        os.umask(spec.umask)
        if spec.hide_devices:
            isolation.hide(spec.hide_devices)
        _take_identity(spec)
        kernel.die_with_parent(_SIGKILL)
        if os.getppid() != supervisor:
            os._exit(127)
        # 0 is /dev/null already, by the fork server; everything above 2 closes itself at the exec.
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        _enter(spec.cwd)
        kernel.block_exactly(())
        _limit(spec)
        _execute(spec, lambda path: _exec(spec, path))
    except isolation.CannotIsolate as trouble:
        os.write(error_fd, MACHINE_FAULT + f"other GPUs cannot be hidden from the job: {trouble}".encode()[:4000])
    except CannotRun as refusal:
        os.write(error_fd, str(refusal).encode("utf-8", "replace")[:4000])
    except BaseException as error:  # noqa: BLE001 - the child has no caller; the sentence is all that is left of it
        sentence = f"the job's process could not be set up: {error!r}".encode("utf-8", "replace")
        # A value that the kernel cannot be given stands in the spec.
        os.write(error_fd, (b"" if isinstance(error, ValueError) else MACHINE_FAULT) + sentence[:4000])
    finally:
        os._exit(127)


def _limit(spec: AttemptSpec) -> None:
    """Last: with little memory or time this process could do nothing else."""
    if spec.nice is not None and resource_limits.is_nicer(spec.nice):
        os.setpriority(os.PRIO_PROCESS, 0, spec.nice)
    resource_limits.apply(resource_limits.changes(spec.limits))


def _exec(spec: AttemptSpec, path: str) -> int:
    try:
        os.execve(path, spec.argv, spec.env)
    except MemoryError:
        raise CannotRun(f"{path} cannot be run: the limits that it was submitted with leave it no memory") from None
    except BlockingIOError:
        # There is a process already, so this is the limit of the user whom it has become.
        raise CannotRun(f"user {spec.user or spec.uid} has as many processes as the user's limit allows") from None


def require_identity(spec: AttemptSpec) -> None:
    """Raises CannotRun under root for a spec that does not say as whom the job is to run, whoever wrote it and however
    it came about: what is missing must never mean root."""
    if os.geteuid() == 0 and (spec.uid is None or spec.gid is None or min(spec.uid, spec.gid) < 0):
        raise CannotRun("the spec does not say as which user and group to run; without that root runs nothing")


def _take_identity(spec: AttemptSpec) -> None:
    require_identity(spec)
    if spec.uid is None:
        return
    if os.geteuid() != 0:
        if spec.uid != os.geteuid():
            raise CannotRun(f"cannot run as user {spec.user or spec.uid}: gpuq does not run as root")
        return
    assert spec.gid is not None
    gid = spec.gid
    try:
        os.initgroups(spec.user or str(spec.uid), gid)
        os.setgid(gid)
        os.setuid(spec.uid)
    except OSError as error:
        raise CannotRun(f"cannot become user {spec.user or spec.uid}: {error.strerror}") from None


def _enter(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except FileNotFoundError:
        raise CannotRun(f"the working directory {cwd} does not exist") from None
    except NotADirectoryError:
        raise CannotRun(f"the working directory {cwd} is not a directory") from None
    except PermissionError:
        raise CannotRun(f"no permission to enter the working directory {cwd}") from None
    except ValueError as error:
        raise CannotRun(f"cannot enter the working directory {cwd!r}: {error}") from None
    except OSError as error:
        raise CannotRun(f"cannot enter the working directory {cwd}: {error.strerror}") from None


def _execute(spec: AttemptSpec, start: Callable[[str], int]) -> int:
    """`start` is tried with every file that the program's name may mean. Raises CannotRun, and OSError when the machine
    has no room for a process."""
    program = spec.argv[0]
    if "/" in program:
        candidates = [program]
    else:
        folders = spec.env.get("PATH", _DEFAULT_PATH).split(":")
        candidates = [os.path.join(folder or ".", program) for folder in folders]
    refused: OSError | None = None
    for path in candidates:
        try:
            # Cheaper than a process for every folder of PATH; also tells who may not look into one.
            os.stat(path)
            return start(path)
        except (FileNotFoundError, NotADirectoryError):
            # A file that is there and still not found: its interpreter is missing. That is worth a sentence.
            if os.path.isfile(path) and os.access(path, os.X_OK):
                raise CannotRun(
                    f"{path} cannot be run: the interpreter that its first line names does not exist"
                ) from None
        except PermissionError as error:
            refused = error
            denied = path
        except OSError as error:
            if error.errno in _NO_PROCESS:
                raise
            raise CannotRun(_why_not(path, error)) from None
        except ValueError as error:
            raise CannotRun(f"{program!r} cannot be run: {error}") from None
    if refused is not None:
        raise CannotRun(_why_not(denied, refused))
    if "/" in program:
        raise CannotRun(f"the program {program} does not exist")
    raise CannotRun(f"the program {program} was not found in the job's PATH")


def _why_not(path: str, error: OSError) -> str:
    if error.errno == errno.EACCES:
        try:
            folder = stat.S_ISDIR(os.stat(path).st_mode)
        except OSError:
            folder = False
        return f"{path} is a directory, not a program" if folder else f"no permission to run {path}"
    if error.errno == errno.ENOEXEC:
        return f"{path} is not a program that this machine can run (a script needs a first line like #!/bin/sh)"
    if error.errno == errno.E2BIG:
        return f"{path} cannot be run: its arguments and environment are too large"
    return f"{path} cannot be run: {error.strerror}"


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _whole(value: object) -> int | None:
    return bundle.integer({"": value}, "")


def _seconds(value: object) -> float | None:
    seconds = bundle.number({"": value}, "")
    return None if seconds is None or seconds < 0 else float(seconds)
