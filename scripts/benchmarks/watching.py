"""Listeners: what they cost the daemon while nothing happens, and how soon they hear of a change; and verbs on
thousands of jobs."""

from __future__ import annotations

import select
import time
from contextlib import ExitStack, closing

from daemon import Daemon, daemon, spec
from stats import Figure, median, noise, quantile

from gpuq.client.calls import Calls
from gpuq.client.stream import EventStream


def watching(seconds: float, rounds: int) -> list[Figure]:
    """50 idle listeners, half of them to events and half to the output of a sleeping job; then 200 that are told."""
    with daemon(gpus=1) as box, closing(box.client()) as client:
        job = client.submit_many([spec("sleep", "600", gpus=0)])[0]["id"]
        held = client.submit_many([spec("true", hold=True)])[0]["id"]
        time.sleep(3)
        with ExitStack() as stack:
            for _ in range(25):
                stack.enter_context(closing(_listen(client, "/events")))
                stack.enter_context(closing(_listen(client, f"/jobs/{job}/log/stream")))
            time.sleep(2)
            share = _share_of_a_core(box, seconds)
        with ExitStack() as stack:
            listeners = [stack.enter_context(closing(_listen(client, "/events"))) for _ in range(200)]
            heard = [_heard(client, held, listeners, number) for number in range(rounds)]
    times = sorted(moment * 1e3 for one in heard for moment in one)
    return [
        Figure("watching: processor", share * 100, "% of a core", f"50 idle listeners over {seconds:g} s"),
        Figure("watching: p50", median(times), "ms", "from a change's answer to each of 200 listeners", noise(times)),
        Figure("watching: p95", quantile(times, 0.95), "ms", f"the same, {rounds} changes"),
    ]


def storms(jobs: int = 10_000) -> list[Figure]:
    """Each verb on so many waiting jobs, from the request to its answer."""
    figures = []
    with daemon(gpus=1) as box, closing(box.client()) as client:
        client.pause()
        ids = [job["id"] for job in client.submit_many([spec("true", str(number)) for number in range(jobs)])]
        for verb in ("hold", "release", "top", "update", "cancel", "retry"):
            words = {"changes": {"priority": "low"}} if verb == "update" else {}
            begin = time.perf_counter()
            answer = client.act(verb, ids, **words) or []
            took = time.perf_counter() - begin
            if any("error" in item for item in answer) or len(answer) != jobs:
                raise RuntimeError(f"{verb} was refused")
            figures.append(Figure(f"storm: {verb}", took, "s", f"{jobs:,} waiting jobs, one request"))
    return figures


def _listen(client: Calls, path: str) -> EventStream:
    stream = client.listen(path)
    if stream is None:
        raise RuntimeError(f"no stream of {path}")
    return stream


def _share_of_a_core(box: Daemon, seconds: float) -> float:
    # The kernel's number for the processor clock of another process: exact, where /proc counts in hundredths.
    clock = (~box.pid() << 3) | 2
    used, begin = time.clock_gettime(clock), time.monotonic()
    time.sleep(seconds)
    return (time.clock_gettime(clock) - used) / (time.monotonic() - begin)


def _heard(client: Calls, job_id: int, listeners: list[EventStream], number: int) -> list[float]:
    """Seconds after which each has its frame."""
    poller = select.poll()
    waiting = {stream.fileno(): stream for stream in listeners}
    for descriptor in waiting:
        poller.register(descriptor, select.POLLIN)
    client.update(job_id, priority=("low", "normal")[number % 2])
    begin = time.perf_counter()
    moments: list[float] = []
    while waiting:
        for descriptor, _ in poller.poll(10_000):
            poller.unregister(descriptor)
            if not waiting.pop(descriptor).frames(1.0):
                raise RuntimeError("a listener was told something else")
            moments.append(time.perf_counter() - begin)
    return moments
