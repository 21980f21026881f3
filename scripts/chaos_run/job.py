"""A job that keeps its own diary, so that nobody has to ask gpuq what ran, when, and on which GPU.

    job.py FOLDER SHAPE SECONDS CODE [CODE ...]

One line a fact, in one write to a file opened with O_APPEND: `kind job attempt gpus pid nanoseconds intended`. The
intended end is an exit code, or minus a signal; attempt n takes the n-th CODE, later ones the last. Each run also holds
an exclusive `flock` on a file of its job and of each of its GPUs. Children inherit these, so the kernel itself says at
the start of a run (`clash`) that somebody of an earlier run still lives. Standard library only, and little of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import sys
import time

BEAT_S = 0.2


class Diary:
    def __init__(self, folder: str, intended: int) -> None:
        self.folder = folder
        self.intended = intended
        self.fd = os.open(os.path.join(folder, "diary"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._gpus = os.environ["GPUQ_GPUS"]
        self.run = f"{os.environ['GPUQ_JOB_ID']} {os.environ['GPUQ_ATTEMPT']} {self._gpus or '-'}"

    def note(self, kind: str) -> None:
        line = f"{kind} {self.run} {os.getpid()} {time.time_ns()} {self.intended}\n"
        os.write(self.fd, line.encode())

    def take_locks(self) -> None:
        names = [f"gpu-{index}" for index in self._gpus.split(",") if index]
        for name in [f"job-{os.environ['GPUQ_JOB_ID']}", *names]:
            fd = os.open(os.path.join(self.folder, name), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.note(f"clash:{name}")
        if os.environ["CUDA_VISIBLE_DEVICES"] != self._gpus:
            self.note(f"clash:CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES'] or '-'}")


def work(diary: Diary, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, BEAT_S))
        if left > BEAT_S:
            diary.note("beat")


def leave_a_stray(diary: Diary, *, deaf: bool) -> None:
    """A grandchild in a session of its own, which outlives its parent unless somebody ends it."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    diary.note("stray")
    while True:
        time.sleep(BEAT_S)
        diary.note("beat")


def leave_an_escapee(diary: Diary) -> None:
    """The same, and nothing in its environment tells whose it is; it keeps the locks of its run."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.set_inheritable(int(name), True)
    words = [sys.executable, "-I", "-S", __file__, "--escapee", str(diary.fd), diary.run, str(diary.intended)]
    os.execve(sys.executable, words, {})


def be_an_escapee(fd: int, run: str, intended: str) -> None:
    kind = "stray"
    while True:
        os.write(fd, f"{kind} {run} {os.getpid()} {time.time_ns()} {intended}\n".encode())
        time.sleep(BEAT_S)
        kind = "beat"


def suspend_the_supervisor() -> None:
    """Its parent, as long as that is one."""
    parent = os.getppid()
    with open(f"/proc/{parent}/stat") as file:
        if "(gpuq-supervisor)" in file.read() and os.getppid() == parent:
            os.kill(parent, signal.SIGSTOP)


def meddle() -> None:
    """Says things in the names of others: to its own supervisor, and to those who look at its progress."""
    own = os.environ["GPUQ_RUN_DIR"]
    with contextlib.suppress(OSError):
        fd = os.open(own + ".records/control", os.O_WRONLY | os.O_NONBLOCK)
        for line in (b'{"reason": 5}\n', b"[" * 50_000 + b"\n", b'{"reason": "cancelled", "grace_s": 0}\n', b"\0\n"):
            with contextlib.suppress(OSError):
                os.write(fd, line)
        os.close(fd)
    with contextlib.suppress(OSError), open(own + "/progress.json", "wb") as file:
        file.write(b'{"progress": ' + b"[" * 20_000)


def tidy_up(what: str) -> None:
    """Removes its own folder, as a program does with its scratch space; or everything of this job."""
    import shutil

    own = os.environ["GPUQ_RUN_DIR"]
    shutil.rmtree(own if what == "tidy" else os.path.dirname(own), ignore_errors=True)


def end(diary: Diary) -> None:
    diary.note("end")
    if diary.intended >= 0:
        os._exit(diary.intended)
    if diary.intended != -signal.SIGKILL:
        signal.signal(-diary.intended, signal.SIG_DFL)
    os.kill(os.getpid(), -diary.intended)


def main(folder: str, shape: str, seconds: float, codes: list[int]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    diary = Diary(folder, codes[min(int(os.environ["GPUQ_ATTEMPT"]), len(codes)) - 1])
    diary.note("start")
    diary.take_locks()
    if shape == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif shape in {"stray", "deaf_stray"}:
        leave_a_stray(diary, deaf=shape == "deaf_stray")
    elif shape == "escapee":
        leave_an_escapee(diary)
    elif shape == "suspends":
        suspend_the_supervisor()
    elif shape == "meddles":
        meddle()
    elif shape == "loud":
        for _ in range(40):
            os.write(1, b"all work and no play makes the log a long one\n" * 1400)
    work(diary, seconds)
    if shape in {"tidy", "tidies_all"}:
        tidy_up(shape)
    end(diary)


if __name__ == "__main__":
    if sys.argv[1] == "--escapee":
        be_an_escapee(int(sys.argv[2]), sys.argv[3], sys.argv[4])
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), [int(code) for code in sys.argv[4:]])
