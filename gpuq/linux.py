"""What several parts of gpuq ask the kernel: processes by number, locks on files, how long a socket's path may be.

Supervisors start with nothing but the standard library (`python -I -S`) and the command line counts milliseconds, so
nothing is imported here that either does not have already.
"""

from __future__ import annotations

import os

# sun_path has 108 bytes, the last a NUL.
SOCKET_PATH_MAX = 107
# prctl: the signal that the kernel sends to this process when its parent ends.
PR_SET_PDEATHSIG = 1
# fallocate: FALLOC_FL_KEEP_SIZE.
_KEEP_SIZE = 1
# mallopt.
_M_MMAP_THRESHOLD = -3

# What `raise_descriptor_limit` found, in the process that called it.
_descriptor_limit_before: int | None = None

_DEAD_STATES = ("Z", "X", "x")


class Process:
    """One line of /proc/PID/stat. `start` in clock ticks since boot; equal when pid and start are."""

    __slots__ = ("group", "parent", "pid", "session", "start", "state")

    def __init__(self, pid: int, stat: bytes) -> None:
        # The second field is the program's name in brackets and may hold anything, brackets and blanks included.
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start = int(fields[19])

    @property
    def key(self) -> tuple[int, int]:
        return (self.pid, self.start)

    @property
    def living(self) -> bool:
        """False for a zombie: it runs nothing and holds nothing but its number."""
        return self.state not in _DEAD_STATES

    @property
    def stopped(self) -> bool:
        return self.state in ("T", "t")


def look(pid: int) -> Process | None:
    """None when there is no such process, and when /proc (mounted with hidepid) hides another user's."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        return Process(pid, os.read(fd, 4096))
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def pid_taken(pid: int) -> bool:
    """Whether there is such a process, a zombie included. By signal 0 and not by /proc, which may hide other users'
    processes."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def raise_descriptor_limit() -> int:
    """Lets this process have as many descriptors as the hard limit says; returns the soft limit that it was started
    with. What it starts inherits the raised one, and a job is to get the one before: many programs close every
    descriptor up to the limit, or keep a table of that size."""
    import resource

    global _descriptor_limit_before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if _descriptor_limit_before is None:
        _descriptor_limit_before = soft
    return _descriptor_limit_before


def descriptor_limit_before() -> int | None:
    """The soft limit before `raise_descriptor_limit`; None where it was not raised."""
    return _descriptor_limit_before


def lock_file(path: str | os.PathLike[str], *, wait: bool = False) -> int:
    """The descriptor of the file, made if need be, with an exclusive `flock` that lasts until it is closed.

    Raises BlockingIOError when another has the lock and `wait` is false, OSError when the file cannot be opened.
    """
    # The command line takes this module for other things, and does without fcntl.
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def allocate(fd: int, size: int) -> None:
    """Gives the first `size` bytes of a file their blocks and leaves its length alone. Raises OSError.

    Not os.posix_fallocate: where the file system cannot do it, that writes to every block.
    """
    import ctypes

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if fallocate(fd, _KEEP_SIZE, 0, size) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def can_allocate(error: OSError) -> bool:
    """Whether what `allocate` raised may go another time; False: this file system never can."""
    import errno

    return error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)


def trim_heap() -> None:
    """Gives the kernel back what the allocator keeps of memory that was freed, a few milliseconds for a hundred MB. By
    itself glibc gives back only the end of a heap, and each thread has one. Elsewhere nothing happens."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_large_blocks_apart() -> None:
    """From now on, what is allocated in one piece of a mebibyte or more goes back to the kernel when it is freed. By
    itself glibc takes such pieces from its heaps once it has seen some, where anything behind them keeps them.
    Elsewhere nothing happens."""
    import ctypes

    settle = getattr(ctypes.CDLL(None), "mallopt", None)
    if settle is not None:
        settle(_M_MMAP_THRESHOLD, 1 << 20)
