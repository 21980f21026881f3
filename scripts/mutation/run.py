"""`scripts/mutate`: a seeded sample of mutants, each against the tests that execute its line.

1. Every worker gets a copy of the tree and a process with the libraries imported.
2. All tests below the crash tier run once, to learn which of them execute which line.
3. A mutant is written into a copy, its tests run there in a fork, the file is put back.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from accepted import read_accepted
from lines import Tests
from mutants import File, Mutant
from report import Result, print_report

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS = ["gpuq/scheduler", "gpuq/engine", "gpuq/supervise", "gpuq/domain"]
# Only what runs in this process or in supervisors of its own: never the daemon, crash, chaos or model tests.
TESTS = [["tests/unit", "tests/conformance"], ["tests/engine", "tests/process"]]
# It measures time, which a busy machine fails as well as a mutant.
UNSTEADY = "test_cost.py"
COPIED = ("gpuq", "migrations", "tests", "scripts", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
MAP_TIMEOUT_S = 600.0
# What pytest answers when it found no test, and worker.py when pytest did not begin.
NO_TESTS, NO_PYTEST = 5, 70


class Worker:
    """A copy of the tree and the process that runs tests in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        environment = os.environ | {
            "PYTHONPATH": f"{folder}:{folder / 'scripts' / 'mutation'}",
            "TMPDIR": str(folder / "tmp"),
            "COVERAGE_FILE": str(folder / "coverage"),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(folder / "scripts" / "mutation" / "worker.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
            # Ctrl-C is for the one that gives the orders, which then ends this one.
            start_new_session=True,
        )

    def ask(self, **order: Any) -> int | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("a worker ended; see above")
        code: int | None = json.loads(answer)["code"]
        return code

    @property
    def output(self) -> str:
        return (self.root / "output").read_text(errors="replace")

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def together(task: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
    """Each call in a thread of its own. The first failure is raised at once; the others end with their workers."""
    pool = ThreadPoolExecutor(len(calls))
    for done in as_completed([pool.submit(task, *call) for call in calls]):
        done.result()


def learn(workers: list[Worker]) -> Tests:
    """One run of all tests, shared among the workers."""
    tests, reading = Tests(), threading.Lock()
    initial = "gpuq/supervise/__init__.py"

    def run(worker: Worker, parts: list[list[str]]) -> None:
        for number, part in enumerate(parts):
            notes = worker.root / f"notes-{number}"
            code = worker.ask(tests=part, notes=str(notes), timeout=MAP_TIMEOUT_S)
            if code not in {0, 1}:
                raise RuntimeError(f"{' '.join(part)} did not run to the end ({code}):\n{worker.output[-4000:]}")
            with reading:
                tests.read(worker.root, notes, worker.root / "coverage")

    for worker in workers:
        shutil.copy(worker.root / "scripts" / "mutation" / "tracer.py", worker.root / initial)
    shares = [TESTS[number :: len(workers)] for number in range(len(workers))]
    together(run, [pair for pair in zip(workers, shares, strict=True) if pair[1]])
    for worker in workers:
        shutil.copy(ROOT / initial, worker.root / initial)
        (worker.root / "executed").unlink(missing_ok=True)
    for test in [test for test in tests.seconds if UNSTEADY in test]:
        del tests.seconds[test]
    return tests


def judge(workers: list[Worker], tests: Tests, sample: list[Mutant], deadline: float) -> list[Result]:
    """In the order of the sample; fewer when the time is over."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in sample:
        waiting.put(mutant)
    results: list[Result] = []

    def work(worker: Worker) -> None:
        while time.monotonic() < deadline:
            try:
                mutant = waiting.get_nowait()
            except queue.Empty:
                return
            chosen, began = tests.of(mutant), time.monotonic()
            verdict = "survived"
            if chosen:
                timeout = 20 + 4 * sum(tests.seconds[test] for test in chosen)
                code = worker.ask(path=mutant.path, source=mutant.source, tests=chosen, timeout=timeout)
                verdict = {0: "survived", None: "timeout"}.get(code, "killed")
                if code in {NO_TESTS, NO_PYTEST}:
                    raise RuntimeError(f"the tests of a mutant did not run ({code}):\n{worker.output[-2000:]}")
            results.append(Result(mutant, verdict, len(chosen)))
            took = time.monotonic() - began
            say(f"{len(results)}/{len(sample)} {verdict} {mutant.path}:{mutant.line} {len(chosen)} tests {took:.1f} s")

    together(work, [(worker,) for worker in workers])
    return results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="the same seed and text give the same sample (%(default)s)")
    parser.add_argument("--sample", type=int, default=100, help="how many mutants (%(default)s)")
    parser.add_argument("--minutes", type=float, default=14, help="begin no mutant after this time (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="at once (%(default)s, one a core)")
    parser.add_argument("--paths", nargs="+", default=PATHS, help="files or folders to mutate")
    parser.add_argument(
        "--goal", type=float, default=85, help="percent killed below which it ends with 1 (%(default)s)"
    )
    return parser.parse_args()


def draw(paths: list[str], seed: int, size: int) -> list[Mutant]:
    files: set[str] = set()
    for path in paths:
        found = [ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("*.py")
        files |= {str(file.relative_to(ROOT)) for file in found}
    places = [(file, place) for file in (File(ROOT, path) for path in sorted(files)) for place in file.places]
    if not places:
        raise SystemExit(f"error: nothing to mutate in {' '.join(paths)}")
    random.Random(seed).shuffle(places)
    say(f"{size} of {len(places)} mutants drawn")
    made = (mutant for file, place in places if (mutant := file.make(place)) is not None)
    return list(itertools.islice(made, size))


def main() -> int:
    options = arguments()
    deadline = time.monotonic() + 60 * options.minutes
    listed = read_accepted(ROOT / "tests" / "mutation" / "equivalent.toml")
    if gone := [entry for entry in listed if not entry.places(ROOT)]:
        told = "".join(f"\n  {entry.file}: {entry.line}" for entry in gone)
        raise SystemExit(f"error: tests/mutation/equivalent.toml names lines that are not in the code any more:{told}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    # A short path, because sockets lie in it, that other users may enter, because some jobs are theirs.
    folder = Path(tempfile.mkdtemp(prefix="gm-", dir="/tmp"))
    folder.chmod(0o755)
    workers: list[Worker] = []
    try:
        sample = draw(options.paths, options.seed, options.sample)
        for number in range(options.workers):
            workers.append(Worker(folder / str(number)))
        say("learning which tests execute which line")
        tests = learn(workers)
        say(f"{len(tests.seconds)} tests" + "".join(f"\n    left out, skipped or failed: {t}" for t in tests.left_out))
        results = judge(workers, tests, sample, deadline)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for worker in workers:
            worker.close()
        shutil.rmtree(folder, ignore_errors=True)
    return print_report(results, listed, options)


if __name__ == "__main__":
    sys.exit(main())
