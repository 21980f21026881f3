"""What is measured of every other queue, in the same way. Runs in the peers' environment: standard library only.

A peer prints each figure as a line of JSON as soon as it has it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from peer_process import background
from stats import Figure, median, noise, timed

HERE = Path(__file__).parent
PROGRAMS = Path(sys.executable).parent
ANSWER_S = 30.0
PAUSES = random.Random(1)


class Peer(ABC):
    """One other queue. `kind` says what its jobs are, `kept` how durable it is as it is set up here."""

    title: str
    package: str
    kind = "a function in its worker, not a process"
    noted = "its first statement notes its start"
    kept: str
    slots = "two workers"
    batches = True

    @abstractmethod
    def stamp(self, pipe: Path) -> None:
        """Queues a job that writes the wall clock in nanoseconds, read as the first thing it does, to that pipe."""

    def started(self, descriptor: int) -> int:
        """What the last `stamp` wrote to the pipe, which is open as that descriptor."""
        if not select.select([descriptor], [], [], ANSWER_S)[0]:
            raise TimeoutError(f"no job started within {ANSWER_S:g} s")
        return int(os.read(descriptor, 100))

    @abstractmethod
    def submit(self) -> None:
        """Queues one no-op job. Returns when the peer has taken it."""

    def submit_many(self, jobs: int) -> None:
        """In one call where the peer has one."""
        for _ in range(jobs):
            self.submit()

    @abstractmethod
    def finished(self) -> int:
        """Jobs whose end is recorded."""

    @abstractmethod
    def workers(self) -> AbstractContextManager[object]:
        """Two job slots that run what is queued."""

    def unattended(self) -> AbstractContextManager[object]:
        """A queue that takes jobs and runs none; what was queued in it is gone afterwards."""
        return nullcontext()


def run(peer: Peer) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("out of time"))
    parser = argparse.ArgumentParser()
    for name in ("rounds", "single", "batch", "jobs", "repeats"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    _submission(peer, options.single, options.batch, options.repeats)
    with peer.workers():
        _dispatch(peer, options.rounds)
        _throughput(peer, options.jobs, options.repeats)


def _tell(peer: Peer, what: str, value: float, unit: str, detail: str, spread: float) -> None:
    name = f"peer: {peer.title} {version(peer.package)}, {what}"
    print(json.dumps(Figure(name, value, unit, detail, spread).to_json()), flush=True)


def _submission(peer: Peer, single: int, batch: int, repeats: int) -> None:
    batches = []
    with peer.unattended():
        for _ in range(20):
            peer.submit()
        seconds = timed(peer.submit, single)
        if peer.batches:
            batches = timed(lambda: peer.submit_many(batch), repeats)
    detail = f"one client, {single} calls; {peer.kept}"
    _tell(peer, "submission, one by one", 1 / median(seconds), "jobs/s", detail, noise(seconds))
    if batches:
        detail = f"{batch:,} in one call; {peer.kept}"
        _tell(peer, "submission, batch", batch / median(batches), "jobs/s", detail, noise(batches))


def _dispatch(peer: Peer, rounds: int) -> None:
    pipe = folder() / "stamps"
    os.mkfifo(pipe)
    # Open for writing too: without that it would be at its end whenever no job has it open.
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        seconds = [_dispatch_once(peer, pipe, descriptor) for _ in range(rounds + 5)][5:]
    finally:
        os.close(descriptor)
    how = f"{rounds} jobs one by one; {peer.noted}; {peer.kind}"
    _tell(peer, "dispatch, p50", median(seconds) * 1e3, "ms", how, noise(seconds))


def _dispatch_once(peer: Peer, pipe: Path, descriptor: int) -> float:
    # Long enough for the worker to have put the last job away; uneven, so as not to keep step with one that polls.
    time.sleep(PAUSES.uniform(0.03, 0.13))
    begin = time.time_ns()
    peer.stamp(pipe)
    return (peer.started(descriptor) - begin) / 1e9


def _throughput(peer: Peer, jobs: int, repeats: int) -> None:
    rates = []
    for _ in range(repeats):
        before = peer.finished()
        begin = time.perf_counter()
        peer.submit_many(jobs)
        while peer.finished() - before < jobs:
            time.sleep(0.02)
        rates.append(jobs / (time.perf_counter() - begin))
    detail = f"{jobs} no-ops on {peer.slots}, median of {repeats}; {peer.kind}; {peer.kept}"
    _tell(peer, "throughput", median(rates), "jobs/s", detail, noise(rates))


def folder() -> Path:
    """Where a peer keeps its files; removed when it has ended."""
    return Path(os.environ["PEER_FOLDER"])


@contextmanager
def running(*commands: list[str]) -> Iterator[None]:
    """Those programs of the peers' environment, in the background, with this folder's modules to import."""
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    with ExitStack() as stack:
        for program, *words in commands:
            words = [str(PROGRAMS / program), *words]
            stack.enter_context(background(words, place=folder(), log=folder() / "workers.log", env=env))
        yield
