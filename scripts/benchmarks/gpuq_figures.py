"""gpuq's own numbers, each on a daemon of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from daemon import GPUQ, Daemon, daemon, spec, wait_until_final
from stats import Figure, median, quantile, timed

from gpuq.client.calls import Calls

# Writes the wall clock in nanoseconds as the first thing it does; its own start (about 1 ms) is counted.
STAMP = ("date", "+%s%N")
# Fewer jobs than one supervisor serves before it ends and takes its processor time with it.
_COUNTED = 150


def dispatch(rounds: int) -> list[Figure]:
    """From just before the submit call to the command's first instruction, on an idle daemon; and the processor time
    that a job takes, which other programs on the machine change less."""
    import psutil

    with daemon(gpus=2) as box:
        client, process = box.client(), psutil.Process(box.pid())
        for _ in range(10):
            _dispatch_once(client)
        counted = min(rounds, _COUNTED)
        used = _cpu_of_tree(process)
        seconds = [_dispatch_once(client) for _ in range(counted)]
        used = _cpu_of_tree(process) - used
        seconds += [_dispatch_once(client) for _ in range(rounds - counted)]
    how = f"{rounds} jobs one by one; `date` notes its start"
    of_whom = "daemon, fork server and supervisors; with the answers to the benchmark's questions"
    return [
        Figure("dispatch, p50", median(seconds) * 1e3, "ms", how, "≤ 12, aim 5"),
        Figure("dispatch, p95", quantile(seconds, 0.95) * 1e3, "ms", how, "≤ 30"),
        Figure("dispatch, processor time", used / counted * 1e3, "ms a job", of_whom),
    ]


def _dispatch_once(client: Calls) -> float:
    begin = time.time_ns()
    job = client.post_jobs(spec(*STAMP))
    while True:
        # The question must not compete with what is measured.
        time.sleep(0.05)
        found = client.job(job["id"])
        if found["state"] in ("completed", "failed"):
            break
    return (int(Path(found["log_path"]).read_text()) - begin) / 1e9


def burst(rounds: int, jobs: int = 16) -> list[Figure]:
    """From just before one submission of many jobs to the first instruction of the last, a GPU for each: far more than
    there are supervisors ready."""
    with daemon(gpus=jobs) as box:
        client = box.client()
        seconds = [_burst_once(client, jobs) for _ in range(rounds + 1)][1:]
    how = f"{jobs} jobs in one request, none ends before the last starts; median of {rounds}"
    return [Figure(f"burst: the last of {jobs} starts", median(seconds) * 1e3, "ms", how)]


def _burst_once(client: Calls, jobs: int) -> float:
    begin = time.time_ns()
    body = spec("sh", "-c", "date +%s%N; sleep 0.5", gpus=1)
    ids = [job["id"] for job in client.submit_many([body] * jobs)]
    found: list[dict[str, Any]] = []
    while not found or any(job["state"] not in ("completed", "failed") for job in found):
        time.sleep(0.2)
        found = [client.job(job_id) for job_id in ids]
    return (max(int(Path(job["log_path"]).read_text()) for job in found) - begin) / 1e9


def throughput(jobs: int = 500) -> list[Figure]:
    """No-op jobs on two slots, from just before the submission to the last end in SQL."""
    rates = []
    for _ in range(3):
        with daemon(gpus=2) as box:
            client = box.client()
            begin = time.perf_counter()
            client.submit_many([spec("true") for _ in range(jobs)])
            wait_until_final(client, jobs)
            rates.append(jobs / (time.perf_counter() - begin))
    return [Figure("throughput", median(rates), "jobs/s", f"{jobs} × `true` on 2 slots, median of 3", "≥ 200, aim 500")]


def submission(single: int, batch: int) -> list[Figure]:
    """Answered only when durable. The queue is paused, so that only submission is measured."""
    with daemon(gpus=1) as box:
        client = box.client()
        client.pause("bench")
        body = spec("true")
        for _ in range(50):
            client.post_jobs(body)
        seconds = timed(lambda: client.post_jobs(body), single)
        many = [spec("true", name=f"job-{n}") for n in range(batch)]
        batches = timed(lambda: client.send_jobs(many), 5)
    return [
        Figure(
            "submission, one by one",
            1 / median(seconds),
            "jobs/s",
            f"one client, {single} requests",
            "≥ 800, aim 1,500",
        ),
        Figure(
            "submission, batch",
            batch / median(batches),
            "jobs/s",
            f"{batch:,} in one request, until the whole answer is here; median of 5",
            "≥ 25,000",
        ),
    ]


def command_line(rounds: int) -> list[Figure]:
    """`gpuq status` and `gpuq submit` with 10,000 jobs waiting, as a multiple of `python -c pass`."""
    with daemon(gpus=1) as box:
        client = box.client()
        client.pause("bench")
        client.submit_many([spec("true", name=f"job-{n}") for n in range(10_000)])
        floor = median(timed(lambda: _run(box, sys.executable, "-c", "pass"), rounds))
        status = median(timed(lambda: _run(box, GPUQ, "status"), rounds))
        submit = median(timed(lambda: _run(box, GPUQ, "submit", "-g", "1", "--", "true"), rounds))
    how = f"median of {rounds}, 10,000 waiting; `python -c pass` {floor * 1e3:.1f} ms"
    return [
        Figure("`gpuq status`", status / floor, "× python", f"{status * 1e3:.1f} ms; {how}", "≤ 5"),
        Figure("`gpuq submit`", submit / floor, "× python", f"{submit * 1e3:.1f} ms; {how}", "≤ 5"),
    ]


def _run(box: Daemon, *words: str) -> None:
    subprocess.run(words, env=box.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def depth(rounds: int) -> list[Figure]:
    """Dispatch of an urgent job with many waiting behind a full GPU; one slot stays free for it."""
    medians: dict[int, float] = {}
    bytes_each = 0.0
    for waiting in (100, 100_000):
        with daemon(gpus=3) as box:
            client = box.client()
            client.post_jobs(spec("sleep", "600", gpus=1))
            before = _redis_bytes(box)
            # They want three GPUs and one is taken; urgent one-GPU jobs run past them.
            for start in range(0, waiting, 20_000):
                client.submit_many([spec("true", gpus=3) for _ in range(min(20_000, waiting - start))])
            if waiting > 1000:
                bytes_each = (_redis_bytes(box) - before) / waiting
            seconds = []
            for _ in range(rounds + 5):
                begin = time.time_ns()
                job = client.post_jobs(spec(*STAMP, priority="critical", time_limit_s=1))
                while (found := client.job(job["id"]))["state"] not in ("completed", "failed"):
                    time.sleep(0.02)
                seconds.append((int(Path(found["log_path"]).read_text()) - begin) / 1e9)
            medians[waiting] = median(seconds[5:])
    few, many = medians[100], medians[100_000]
    return [
        Figure(
            "depth: dispatch with 100,000 waiting",
            many / few,
            "× with 100",
            f"{few * 1e3:.1f} and {many * 1e3:.1f} ms",
            "≤ 2",
        ),
        Figure("depth: Redis per waiting job", bytes_each, "bytes", "used_memory over 100,000", "≤ 200"),
    ]


def _redis_bytes(box: Daemon) -> float:
    import redis

    from gpuq.stores.redis import private_url

    client = redis.Redis.from_url(private_url(box.home))
    try:
        return float(client.info("memory")["used_memory"])
    finally:
        client.close()


def idle(seconds: float) -> list[Figure]:
    """The daemon with nothing to do, its Redis apart; then supervisors of sleeping jobs."""
    import psutil

    with daemon(gpus=20) as box:
        process = psutil.Process(box.pid())
        time.sleep(3)
        used = _cpu_of_tree(process)
        begin = time.monotonic()
        time.sleep(seconds)
        share = (_cpu_of_tree(process) - used) / (time.monotonic() - begin)
        resident = process.memory_info().rss / 2**20
        client = box.client()
        client.submit_many([spec("sleep", "60", name="sleeper") for _ in range(20)])
        while client.stats()["jobs"]["running"] < 20:
            time.sleep(0.05)
        shares = [_pss(found) for found in _supervisors(client)]
    return [
        Figure("idle: processor", share * 100, "% of a core", f"over {seconds:g} s, Redis apart", "≤ 0.5"),
        Figure("idle: resident", resident, "MB", "the daemon's process", "≤ 160"),
        Figure("supervisor: memory", median(shares), "MB", "proportional set size, median of 20", "≤ 12"),
    ]


def _cpu_of_tree(process: object) -> float:
    """Seconds. What has ended does not count: the jobs are not meant, and few supervisors end."""
    import psutil

    assert isinstance(process, psutil.Process)
    tree = [process, *(child for child in process.children(recursive=True) if "redis" not in child.name())]
    return sum(part.cpu_times().user + part.cpu_times().system for part in tree)


def _supervisors(client: Calls) -> list[int]:
    parents = []
    for job in client.jobs(state="running"):
        stat = Path(f"/proc/{job['pid']}/stat").read_text()
        parents.append(int(stat[stat.rindex(")") + 2 :].split()[1]))
    return parents


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no PSS of {pid}")


def from_file(lines: int) -> list[Figure]:
    """The batch through the command line, file reading and all."""
    with daemon(gpus=1) as box, tempfile.NamedTemporaryFile("w", suffix=".jsonl") as stream:
        for n in range(lines):
            stream.write(json.dumps({"command": ["true"], "cwd": os.getcwd(), "name": f"job-{n}"}) + "\n")
        stream.flush()
        box.gpuq("pause")
        begin = time.perf_counter()
        box.gpuq("submit", "--from-file", stream.name, "--parsable")
        seconds = time.perf_counter() - begin
    return [
        Figure("submission, `--from-file`", lines / seconds, "jobs/s", f"{lines:,} lines, command line included", "")
    ]
