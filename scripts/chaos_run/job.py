"""A job that keeps its own diary, so that nobody has to ask gpuq what ran, when, and on which GPU.

    job.py FOLDER SHAPE SECONDS CODE [CODE ...]

One line a fact, in one write to a file opened with O_APPEND: `kind job attempt gpus pid nanoseconds intended`. The
intended end is an exit code, or minus a signal; attempt n takes the n-th CODE, later ones the last. Each run also holds
an exclusive `flock` on a file of its job and of each of its GPUs. Children inherit these, so the kernel itself says at
the start of a run (`clash`) that somebody of an earlier run still lives. Standard library only, and little of it.
"""

from __future__ import annotations

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
        self._fd = os.open(os.path.join(folder, "diary"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._gpus = os.environ["GPUQ_GPUS"]
        self._run = f"{os.environ['GPUQ_JOB_ID']} {os.environ['GPUQ_ATTEMPT']} {self._gpus or '-'}"

    def note(self, kind: str) -> None:
        line = f"{kind} {self._run} {os.getpid()} {time.time_ns()} {self.intended}\n"
        os.write(self._fd, line.encode())

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
    elif shape == "loud":
        for _ in range(40):
            os.write(1, b"all work and no play makes the log a long one\n" * 1400)
    work(diary, seconds)
    end(diary)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), [int(code) for code in sys.argv[4:]])
