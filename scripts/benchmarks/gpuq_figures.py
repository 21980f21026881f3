"""gpuq's own numbers, each on a daemon of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon import GPUQ, Daemon, daemon, spec, wait_until_final
from stats import Figure, median, noise, quantile, timed

from gpuq.client.calls import Calls

# Writes the wall clock in nanoseconds as the first thing it does; its own start (about 1 ms) is counted.
STAMP = ("date", "+%s%N")
# After the answer to a large request.
GIVEN_BACK_S = 10.0


def dispatch(rounds: int) -> list[Figure]:
    """From just before the submit call to the command's first instruction, on an idle daemon."""
    with daemon(gpus=2) as box:
        client = box.client()
        seconds = [_dispatch_once(client) for _ in range(rounds + 10)][10:]
    how = f"{rounds} jobs one by one; `date` notes its start"
    return [
        Figure("dispatch, p50", median(seconds) * 1e3, "ms", how, noise(seconds)),
        Figure("dispatch, p95", quantile(seconds, 0.95) * 1e3, "ms", how, noise(seconds)),
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
    return [Figure(f"burst: the last of {jobs} starts", median(seconds) * 1e3, "ms", how, noise(seconds))]


def _burst_once(client: Calls, jobs: int) -> float:
    begin = time.time_ns()
    body = spec("sh", "-c", "date +%s%N; sleep 0.5", gpus=1)
    ids = [job["id"] for job in client.submit_many([body] * jobs)]
    found: list[dict[str, Any]] = []
    while not found or any(job["state"] not in ("completed", "failed") for job in found):
        time.sleep(0.2)
        found = [client.job(job_id) for job_id in ids]
    return (max(int(Path(job["log_path"]).read_text()) for job in found) - begin) / 1e9


def throughput(repeats: int, jobs: int = 500) -> list[Figure]:
    """No-op jobs on two slots, from just before the first submission to the last end in SQL; and the processor time
    that all of gpuq took for one of them, which other programs on the machine change less."""
    return [
        *_throughput("one by one", repeats, jobs, lambda client: [client.post_jobs(spec("true")) for _ in range(jobs)]),
        *_throughput("a batch drained", repeats, jobs, lambda client: client.submit_many([spec("true")] * jobs)),
    ]


def _throughput(name: str, repeats: int, jobs: int, submit: Callable[[Calls], object]) -> list[Figure]:
    rates, used, files = [], [], []
    for _ in range(repeats):
        with daemon(gpus=2) as box:
            client = box.client()
            before, begin = _cpu_of_all(box), time.perf_counter()
            submit(client)
            wait_until_final(client, jobs)
            rates.append(jobs / (time.perf_counter() - begin))
            used.append((_cpu_of_all(box) - before) / jobs * 1e3)
            # Nothing tells when the supervisors have cleared away the last records.
            time.sleep(0.5)
            files.append(sum(len(list(job.rglob("*"))) + 1 for job in (box.home / "jobs").glob("[0-9]*")) / jobs)
    of_whom = f"daemon, Redis, fork server, supervisors and the start of `true`; median of {repeats}"
    how = f"{jobs} × `true` on 2 slots, median of {repeats}"
    return [
        Figure(f"throughput, {name}", median(rates), "jobs/s", how, noise(rates)),
        Figure(f"processor time, {name}", median(used), "ms a job", of_whom, noise(used)),
        Figure(f"left on disk, {name}", median(files), "files a job", "folders too; one is the output", noise(files)),
    ]


def _cpu_of_all(box: Daemon) -> float:
    """Seconds, of the daemon and all below it, with what has ended and was waited for."""
    import psutil

    process = psutil.Process(box.pid())
    return sum(sum(part.cpu_times()[:4]) for part in [process, *process.children(recursive=True)])


def submission(single: int, batch: int) -> list[Figure]:
    """Answered only when durable. The queue is paused, so that only submission is measured."""
    with daemon(gpus=1) as box:
        client = box.client()
        client.pause("bench")
        body = spec("true")
        for _ in range(50):
            client.post_jobs(body)
        seconds = timed(lambda: client.post_jobs(body), single)
        together = [_submit_together(box, 4, single // 4) for _ in range(3)]
        many = [spec("true", name=f"job-{n}") for n in range(batch)]
        batches = timed(lambda: client.send_jobs(many), 5)
    one, four = f"one client, {single} requests", f"four processes, {single // 4} requests each; median of 3"
    how = f"{batch:,} in one request, until the whole answer is here; median of 5"
    return [
        Figure("submission, one by one", 1 / median(seconds), "jobs/s", one, noise(seconds)),
        Figure("submission, four clients together", median(together), "jobs/s", four, noise(together)),
        Figure("submission, batch", batch / median(batches), "jobs/s", how, noise(batches)),
    ]


# Waits for a line on its standard input, so that all begin at once.
_SUBMITTER = """
import sys
from gpuq.client.calls import Calls
client = Calls(server=sys.argv[1])
client.post_jobs({"command": ["true"], "cwd": "/"})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    client.post_jobs({"command": ["true"], "cwd": "/"})
"""


def _submit_together(box: Daemon, clients: int, each: int) -> float:
    """Jobs a second, from the first request to the last answer."""
    words = [sys.executable, "-c", _SUBMITTER, f"unix://{box.home}/gpuq.sock", str(each)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    submitters = [subprocess.Popen(words, **pipes) for _ in range(clients)]  # type: ignore[call-overload]
    for one in submitters:
        one.stdout.readline()
    begin = time.perf_counter()
    for one in submitters:
        one.stdin.write("go\n")
        one.stdin.flush()
    codes = [one.wait() for one in submitters]
    seconds = time.perf_counter() - begin
    if any(codes):
        raise RuntimeError(f"a client ended with {max(codes)}")
    return clients * each / seconds


def request_memory(jobs: int = 50_000) -> list[Figure]:
    """Of the daemon, above what it has when idle: while one request of many jobs is taken, and some seconds later."""
    with daemon(gpus=1) as box:
        client, proc = box.client(), Path(f"/proc/{box.pid()}")
        client.pause("bench")
        client.post_jobs(spec("true"))
        idle_mb = _memory(proc, "VmRSS")
        # Makes the peak start anew.
        (proc / "clear_refs").write_text("5")
        client.send_jobs([spec("true", name=f"job-{n}") for n in range(jobs)])
        peak = _memory(proc, "VmHWM")
        time.sleep(GIVEN_BACK_S)
        kept = _memory(proc, "VmRSS")
    return [
        Figure(f"submission, memory of {jobs:,} at once", peak - idle_mb, "MB", "peak of the daemon above idle"),
        Figure("submission, memory kept afterwards", kept - idle_mb, "MB", f"{GIVEN_BACK_S:g} s after the answer"),
    ]


def _memory(proc: Path, field: str) -> float:
    line = next(line for line in (proc / "status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def command_line(rounds: int) -> list[Figure]:
    """`gpuq status` and `gpuq submit` as a multiple of `python -c pass`, with 10,000 jobs waiting and with 100,000."""
    figures = []
    with daemon(gpus=1) as box:
        client = box.client()
        client.pause("bench")
        for waiting, added, name in ((10_000, 10_000, ""), (100_000, 90_000, ", 100,000 waiting")):
            for start in range(0, added, 30_000):
                client.submit_many([spec("true", name=f"job-{n}") for n in range(start, min(start + 30_000, added))])
            floor = timed(lambda: _run(box, sys.executable, "-c", "pass"), rounds)
            how = f"median of {rounds}, {waiting:,} waiting; `python -c pass` {median(floor) * 1e3:.1f} ms"
            for words in (("status",), ("submit", "-g", "1", "--", "true")):
                taken = timed(lambda words=words: _run(box, GPUQ, *words), rounds)  # type: ignore[misc]
                told = f"{median(taken) * 1e3:.1f} ms; {how}"
                ratio, unsure = median(taken) / median(floor), noise(taken) + noise(floor)
                figures.append(Figure(f"`gpuq {words[0]}`{name}", ratio, "× python", told, unsure))
    return figures


def _run(box: Daemon, *words: str) -> None:
    subprocess.run(words, env=box.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def depth(rounds: int) -> list[Figure]:
    """Dispatch of an urgent job with many waiting behind a full GPU; one slot stays free for it."""
    medians: dict[int, float] = {}
    spread: dict[int, float] = {}
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
            medians[waiting], spread[waiting] = median(seconds[5:]), noise(seconds[5:])
    few, many = medians[100], medians[100_000]
    return [
        Figure(
            "depth: dispatch with 100,000 waiting",
            many / few,
            "× with 100",
            f"{few * 1e3:.1f} and {many * 1e3:.1f} ms",
            spread[100] + spread[100_000],
        ),
        Figure("depth: Redis per waiting job", bytes_each, "bytes", "used_memory over 100,000"),
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
        Figure("idle: processor", share * 100, "% of a core", f"over {seconds:g} s, Redis apart"),
        Figure("idle: resident", resident, "MB", "the daemon's process"),
        Figure("supervisor: memory", median(shares), "MB", "proportional set size, median of 20", noise(shares)),
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
    return [Figure("submission, `--from-file`", lines / seconds, "jobs/s", f"{lines:,} lines, command line included")]
