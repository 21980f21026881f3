"""A real daemon, real jobs, and everything that can break it; `scripts/chaos --help` tells how to run it."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from agreement import Agreement
from checker import Violation, check
from customers import Customers
from evidence import Evidence, read_diary, read_rows
from faults import Faults
from installation import Installation
from processes import Reaper, become_subreaper, wait_until
from shapes import KILL_GRACE_S, Shapes

from gpuq.client.calls import Calls
from gpuq.errors import GpuqError

# A hint that was lost is found when the two stores differed in two looks, a minute apart.
DRAIN_S = 240.0
READY_S = 30.0


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    become_subreaper()
    seed = options.seed if options.seed is not None else str(time.time_ns() % 1_000_000)
    say(f"seed {seed}, {options.minutes:g} minutes, {options.database}, {options.gpus} GPUs")
    with _database(options.database) as server:
        url = None if server is None else server.url(server.create())
        box = Installation(options.gpus, url)
        keep, found = options.keep, False
        try:
            found = _run(box, options, seed, server)
        except Exception:
            keep = True
            raise
        finally:
            box.kill_everything()
            if keep or found:
                say(f"kept: {box.folder}")
            else:
                box.remove()
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults are injected (default 1)")
    parser.add_argument(
        "--every",
        type=float,
        default=1.0,
        help="seconds from one fault to the next, on average (default 1); some last longer, and others go on meanwhile",
    )
    parser.add_argument("--seed", help="of everything that is drawn; the timing stays the machine's own")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--gpus", type=int, default=4, help="simulated ones (default 4)")
    parser.add_argument("--keep", action="store_true", help="leave the home also when nothing was found")
    return parser.parse_args()


@contextlib.contextmanager
def _database(kind: str) -> Iterator[Any]:
    """A PostgreSQL of our own, or None for SQLite."""
    if kind == "sqlite":
        yield None
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "services"))
    from postgres import PostgresServer, find_postgres

    programs = find_postgres()
    if programs is None:
        sys.exit("error: no PostgreSQL programs (initdb, postgres) were found")
    server = PostgresServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _run(box: Installation, options: argparse.Namespace, seed: str, server: Any) -> bool:
    """Whether a violation was found."""
    agreement = Agreement(box)
    if not box.up():
        sys.exit(f"error: {box.refusals[-1]}")
    faults = Faults(box, seed, database=server)
    customers = Customers(box, Shapes(Random(f"{seed} shapes"), box.diary, options.gpus), seed)
    begun = time.monotonic()
    try:
        customers.start()
        _break_things(faults, Random(f"{seed} pauses"), options.minutes * 60, options.every)
        lasted = time.monotonic() - begun
        faults.settle()
    finally:
        faults.stop()
        customers.stop()
    drained = customers.let_drain(DRAIN_S)
    evidence = _collect(box, faults, customers, agreement)
    violations = check(evidence, grace_s=KILL_GRACE_S)
    _report(evidence, faults, violations, seed, options.database, lasted, drained)
    return bool(violations)


def _break_things(faults: Faults, random: Random, seconds: float, every_s: float) -> None:
    reaper = Reaper()
    until = time.monotonic() + seconds
    due = collect_at = time.monotonic() + 0.5
    while (now := time.monotonic()) < until:
        if now < due:
            time.sleep(min(due, until) - now)
            continue
        faults.inject()
        # Also while a slow fault took its time: the rate is kept.
        due = max(now, due + random.expovariate(1 / every_s))
        if now > collect_at:
            collect_at = now + 5.0
            reaper.collect()


def _collect(box: Installation, faults: Faults, customers: Customers, agreement: Agreement) -> Evidence:
    evidence = Evidence(
        submissions=customers.submissions,
        requests=customers.requests,
        kills=faults.kills,
        complaints=[*faults.complaints, *customers.complaints, *_unready(), *_log_errors(box)],
    )
    # Released after the commit of the last end; nothing tells when that has been done.
    wait_until(lambda: not _leases(box), 5.0, pause_s=0.1)
    evidence.left_leases = _leases(box)
    wait_until(lambda: not box.jobs(), 5.0, pause_s=0.1)
    evidence.left_processes = [f"pid {process.pid} of attempt {run[1]} of job {run[0]}" for process, run in box.jobs()]
    evidence.diary = read_diary(box.diary / "diary")
    for name, rows in read_rows(box.url).items():
        setattr(evidence, name, rows)
    # What has ended a moment ago may still be put away.
    wait_until(lambda: not list(agreement.at_rest(evidence.jobs, evidence.attempts)), 10.0, pause_s=0.5)
    evidence.complaints += agreement.at_rest(evidence.jobs, evidence.attempts)
    box.down()
    evidence.left_processes += box.end_everything()
    evidence.complaints += agreement.after()
    return evidence


def _leases(box: Installation) -> list[str]:
    with contextlib.closing(box.redis()) as link:
        return [f"{key} {link.zrange(key, 0, -1)}" for key in sorted(link.scan_iter("gpuq:lease:*"))]


def _unready() -> list[tuple[str, str]]:
    """What /readyz still complains of after READY_S."""
    said: dict[str, Any] = {}

    def ready() -> bool:
        try:
            with contextlib.closing(Calls(direct=False)) as client:
                said.update(client.health())
        except GpuqError as error:
            said.update(ready=False, checks={"daemon": {"ok": False, "detail": error.message}})
        return bool(said["ready"])

    if wait_until(ready, READY_S, pause_s=0.2):
        return []
    return [("P5", f"{part}: {told['detail']}") for part, told in said["checks"].items() if not told["ok"]]


def _log_errors(box: Installation) -> list[tuple[str, str]]:
    """Errors that nobody had thought of stand in the logs with a traceback; each kind is told once."""
    found: dict[str, str] = {}
    for path in (*sorted(box.home.glob("daemon.log*")), box.home / "supervisors.log"):
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        for number, line in enumerate(lines):
            if line.startswith("Traceback "):
                last = next((text for text in lines[number + 1 :] if text and not text.startswith(" ")), "")
                found.setdefault(last[:120], f"{path.name} line {number + 1}: {last}")
    return [("errors", text) for text in found.values()]


def _report(
    evidence: Evidence,
    faults: Faults,
    violations: list[Violation],
    seed: str,
    database: str,
    lasted: float,
    drained: float,
) -> None:
    total = sum(faults.counts.values())
    answered = sum(len(one.ids) for one in evidence.submissions if one.ids is not None)
    runs = len({line.run for line in evidence.diary})
    cancels = sum(one.verb == "cancel" and one.answered is not None for one in evidence.requests)
    print("| fault | injected |\n|---|---:|")
    for kind, count in faults.counts.most_common():
        print(f"| {kind} | {count} |")
    print(f"| **all** | **{total}** |\n")
    print(
        f"{database}, seed {seed}: {total} faults in {lasted / 60:.1f} minutes ({total / lasted * 60:.0f} a minute), "
        f"{answered} jobs answered, {runs} runs, {cancels} cancels answered, drained in {drained:.1f} s.\n"
    )
    print(f"Violations: {len(violations)}")
    if violations:
        print("\n| promise | job | evidence |\n|---|---:|---|")
        for one in violations:
            told = one.evidence.replace("|", "/").replace("\n", " ")
            print(f"| {one.promise} | {one.job if one.job is not None else ''} | {told} |")


def say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
