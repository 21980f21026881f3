"""Those who use the queue while it is being broken: one submits, one changes its mind. Each keeps what was answered."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from random import Random
from typing import Any

from evidence import Request, Submission
from installation import GPUQ, Installation
from shapes import Shapes

from gpuq.client.calls import Calls
from gpuq.errors import GpuqError

# No more than this many jobs are kept waiting and running: the queue shall turn over, not pile up.
OUTSTANDING = 50
CLI_S = 60.0
# The share of calls that go straight to the database when no daemon answers.
DIRECT = 0.2


class Customers:
    """`submissions` and `requests` are appended to by one thread each and read when both have ended."""

    def __init__(self, installation: Installation, shapes: Shapes, seed: str) -> None:
        self.submissions: list[Submission] = []
        self.requests: list[Request] = []
        self.complaints: list[tuple[str, str]] = []
        self.unanswered = 0
        self._installation = installation
        self._shapes = shapes
        self._seed = seed
        self._ids: list[int] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(what,), name=what.__name__)
            for what in (self._submit_some, self._change_something)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when both have had their last answer."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self, what: Any) -> None:
        random = Random(f"{self._seed} {what.__name__}")
        while not self._stop.is_set():
            try:
                # A new client each time: one that found no daemon stays with the database for good. Most give up then,
                # because going there costs a Python start with everything in it.
                with contextlib.closing(Calls(direct=random.random() < DIRECT)) as client:
                    what(random, client)
            except GpuqError:
                self.unanswered += 1
                self._stop.wait(0.2)
            except Exception as error:  # noqa: BLE001 - any other error of the client is a finding
                self.complaints.append(("errors", f"{what.__name__}: {type(error).__name__}: {error}"))
                self._stop.wait(0.2)

    # -- submitting ---------------------------------------------------------------------------------------------

    def _submit_some(self, random: Random, client: Calls) -> None:
        count = random.choices((1, random.randrange(2, 8)), weights=(5, 1))[0]
        by_command_line = random.random() < 0.08
        specs = [self._settled(self._shapes.draw(self._ids[-12:]), random) for _ in range(count)]
        asked = [Submission(spec["name"], elements(spec), None, spec.get("key")) for spec in specs]
        try:
            jobs = self._by_command_line(specs) if by_command_line else _as_list(client.post_jobs(specs))
        except BaseException:
            self.submissions.extend(asked)
            raise
        # The answer is flat: arrays are unfolded in place.
        ids = iter([int(job["id"]) for job in jobs])
        for one in asked:
            given = tuple(next(ids) for _ in range(one.jobs))
            self.submissions.append(Submission(one.name, one.jobs, given, one.key))
            self._ids.extend(given)
        self._wait_for_room(random, client)

    def _settled(self, spec: dict[str, Any], random: Random) -> dict[str, Any]:
        if "begin" in spec:
            spec["begin"] = time.time() + random.uniform(0.1, 3.0)
        return spec

    def _by_command_line(self, specs: list[dict[str, Any]]) -> list[Any]:
        lines = "\n".join(json.dumps(spec) for spec in specs)
        done = subprocess.run(
            [GPUQ, "submit", "--from-file", "-", "--json"],
            input=lines, capture_output=True, text=True, timeout=CLI_S, check=False,
        )  # fmt: skip
        if "Traceback" in done.stderr:
            self.complaints.append(("errors", f"gpuq submit showed a traceback: {done.stderr}"))
        if done.returncode != 0:
            raise GpuqError(done.stderr)
        return _as_list(json.loads(done.stdout))

    def _wait_for_room(self, random: Random, client: Calls) -> None:
        while not self._stop.wait(random.uniform(0.02, 0.25)):
            counts = client.stats()
            if client.is_direct or counts["waiting"] + counts["running"] < OUTSTANDING:
                return

    # -- changing one's mind ------------------------------------------------------------------------------------

    def _change_something(self, random: Random, client: Calls) -> None:
        verb = random.choices(
            ("cancel", "force", "hold", "release", "top", "update", "retry", "storm"), weights=(10, 3, 4, 5, 2, 3, 3, 2)
        )[0]
        recent = list(self._ids[-60:])
        job = random.choice(recent) if recent else None
        pause = random.uniform(0.05, 0.5)
        if job is not None:
            if verb == "storm":
                self._storm(random, client, random.sample(recent, min(len(recent), 30)))
            elif verb in {"cancel", "force", "retry"}:
                self._asked("cancel" if verb == "force" else verb, job, client, force=verb == "force")
            elif verb == "update":
                client.update(job, priority=random.choice(("high", "low")))
            else:
                getattr(client, verb)(job)
        self._stop.wait(pause)

    def _asked(self, verb: str, job: int, client: Calls, *, force: bool = False) -> None:
        asked = time.time()
        try:
            answer = client.cancel(job, force=force) if verb == "cancel" else client.retry(job)
        except BaseException:
            self.requests.append(Request(verb, job, asked, None))
            raise
        self.requests.append(Request(verb, job, asked, time.time(), answer["state"]))

    def _storm(self, random: Random, client: Calls, jobs: list[int]) -> None:
        """One request for many jobs."""
        verb = random.choice(("cancel", "cancel", "hold", "release", "top", "retry"))
        asked = time.time()
        kept = verb in {"cancel", "retry"}
        try:
            answer = client.act(verb, jobs)
        except BaseException:
            self.requests.extend(Request(verb, job, asked, None) for job in jobs if kept)
            raise
        answered = time.time()
        for one in answer or ():
            # What was refused was not done.
            if kept and "state" in one:
                self.requests.append(Request(verb, one["id"], asked, answered, one["state"]))

    # -- the end ------------------------------------------------------------------------------------------------

    def let_drain(self, timeout_s: float) -> float:
        """Releases what is held, cancels what waits for a job that will not succeed, and waits until all are final.
        Seconds that it took; what is not final then is for the checker to find."""
        begun = time.monotonic()
        while (left := timeout_s - (time.monotonic() - begun)) > 0:
            try:
                with contextlib.closing(Calls(direct=False)) as client:
                    if not self._settle(client):
                        break
            except GpuqError as error:
                if left < 1:
                    self.complaints.append(("P5", f"no answer at the end: {error.message}"))
            time.sleep(0.2)
        else:
            self.complaints.append(("P8", f"not all jobs were final {timeout_s:g} s after the last fault"))
        return time.monotonic() - begun

    def _settle(self, client: Calls) -> bool:
        """One look; whether something is still to be waited for."""
        counts = client.stats()["jobs"]
        for job in client.jobs(state="held"):
            client.release(job["id"])
        for job in client.jobs(state="blocked") if counts["blocked"] else ():
            if client.why(job["id"])["reason"]["code"] == "DependencyNeverSatisfied":
                self._asked("cancel", job["id"], client)
        return any(counts[state] for state in counts if state not in {"completed", "failed", "cancelled"})


def elements(spec: dict[str, Any]) -> int:
    """How many jobs a submission makes."""
    if "array" not in spec:
        return 1
    span, _, _ = spec["array"].partition("%")
    span, _, step = span.partition(":")
    first, _, last = span.partition("-")
    return len(range(int(first), int(last) + 1, int(step or 1)))


def _as_list(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else [answer]
