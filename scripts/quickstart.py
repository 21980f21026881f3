"""The second half of scripts/quickstart: a throwaway daemon, six jobs, and a check of everything they did."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GPUQ = str(Path(sys.executable).with_name("gpuq"))
TRAIN = [sys.executable, str(Path(__file__).with_name("examples") / "train_digits.py")]
# For a crowded machine; an idle one needs about 20.
LIMIT_S = 180
ACCURACY = 0.95


class Broken(Exception):
    """Something did not go as this script says it does."""


class Quickstart:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.began = time.monotonic()
        self.ids: dict[str, int] = {}
        config = home / "config.toml"
        config.touch()
        # Neither the settings of a gpuq in daily use nor its config file apply here.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GPUQ_")}
        self.environment |= {"GPUQ_HOME": str(home), "GPUQ_CONFIG": str(config), "GPUQ_RETRY_BASE": "0.2"}

    def quietly(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [GPUQ, *words], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            raise Broken(f"`gpuq {shlex.join(words)}` ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def json(self, *words: str) -> Any:
        options: tuple[str, ...] = words
        command: tuple[str, ...] = ()
        if "--" in words:
            options, command = words[: words.index("--")], words[words.index("--") :]
        return json.loads(self.quietly(*options, "--json", *command).stdout)

    def show(self, *words: str) -> None:
        """Prints a command and what it answers."""
        print(f"\n$ gpuq {shlex.join(words)}", flush=True)
        done = subprocess.run([GPUQ, *words], env=self.environment, timeout=60, check=False)
        if done.returncode != 0:
            raise Broken(f"`gpuq {shlex.join(words)}` ended with {done.returncode}")

    def submit(self, name: str, command: list[str], *options: str) -> None:
        shown = ["python" if word == sys.executable else word for word in command]
        shown = [
            str(Path(word).relative_to(Path.cwd())) if Path(word).is_relative_to(Path.cwd()) else word for word in shown
        ]
        print(f"$ gpuq submit --name {name} {shlex.join(options)} -- {shlex.join(shown)}", flush=True)
        job = self.json("submit", "--name", name, *options, "--", *command)
        self.ids[name] = job["id"]

    def up(self) -> int:
        """Starts the daemon; returns how many GPUs may be used."""
        if real_gpus():
            self.environment["GPUQ_GPUS"] = "nvml"
            self.show("up", "--detach")
            free = sum(1 for gpu in self.json("gpus") if gpu["state"] == "free")
            if free:
                return free
            print("No GPU is free here; going on with simulated ones.", flush=True)
            self.show("down")
        else:
            print("No NVIDIA GPU here; going on with four simulated ones.", flush=True)
        self.environment["GPUQ_GPUS"] = "sim:4"
        self.show("up", "--detach")
        return 4

    def queue(self, gpus: int) -> None:
        some = min(2, gpus)
        # Paused, so that all of them stand in line once before the first one leaves it.
        self.show("pause", "--reason", "the line is being filled")
        print(flush=True)
        self.submit("small", [*TRAIN, "--hidden", "64"], "--gpus", "1", "--priority", "low", "--time", "5m")
        self.submit("all-gpus", [*TRAIN, "--hidden", "128"], "--gpus", str(gpus), "--time", "5m")
        self.submit("wide", [*TRAIN, "--lr", "0.1"], "--gpus", "1", "--priority", "high", "--time", "5m")
        self.submit("urgent", [*TRAIN, "--seed", "1"], "--gpus", str(some), "--priority", "critical", "--time", "5m")
        self.submit(
            "broken",
            [*TRAIN, "--epochs", "40", "--fail-at-epoch", "25"],
            "--gpus",
            "1",
            "--retries",
            "1",
            "--time",
            "5m",
        )
        self.submit("endless", ["sleep", "600"], "--gpus", "0", "--kill-grace", "5s")
        self.show("status")
        self.show("resume")

    def watch(self) -> None:
        """Shows the queue moving until every job is final."""
        self.until("endless", "running")
        self.show("status")
        self.show("cancel", str(self.ids["endless"]), "--reason", "it would never end")
        words = ["wait", *(str(number) for number in self.ids.values()), "--timeout", f"{LIMIT_S}s"]
        with subprocess.Popen(
            [GPUQ, *words], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as waiting:
            try:
                while True:
                    try:
                        code = waiting.wait(timeout=4)
                        break
                    except subprocess.TimeoutExpired:
                        self.show("status")
            finally:
                waiting.kill()
        if code != 125:
            raise Broken(f"`gpuq wait` ended with {code}, not with 125 for the cancelled job")

    def until(self, name: str, state: str) -> None:
        while (found := self.json("show", str(self.ids[name]))["state"]) != state:
            if time.monotonic() - self.began > LIMIT_S:
                raise Broken(f"job {name} is still {found}, not {state}")
            time.sleep(0.1)

    def check(self) -> None:
        jobs = {name: self.json("show", str(number)) for name, number in self.ids.items()}
        for name in ("small", "all-gpus", "wide", "urgent"):
            expect(name, jobs[name], state="completed", outcome="succeeded", exit_code=0, retries_used=0)
            last = self.quietly("logs", str(self.ids[name]), "-n", "1").stdout.split()
            if last[:1] != ["accuracy"] or float(last[1]) < ACCURACY:
                raise Broken(f"job {name} should have ended with an accuracy of {ACCURACY}: {' '.join(last)!r}")
            print(f"  {name}: completed, accuracy {last[1]}")
        for name in ("all-gpus", "small"):
            if jobs[name]["started_at"] < jobs["urgent"]["started_at"]:
                raise Broken(f"the critical job should have started before {name}")
        expect("broken", jobs["broken"], state="failed", outcome="exit_nonzero", exit_code=1, retries_used=1)
        if len(jobs["broken"]["attempts"]) != 2:
            raise Broken(f"job broken should have had 2 attempts, not {len(jobs['broken']['attempts'])}")
        if "resumed after epoch 20" not in self.quietly("logs", str(self.ids["broken"]), "--attempt", "2").stdout:
            raise Broken("the second attempt of job broken did not resume from its checkpoint")
        print("  broken: failed twice, resumed from its checkpoint in between, in the dead-letter queue")
        expect("endless", jobs["endless"], state="cancelled", outcome="cancelled")
        print("  endless: cancelled while it ran")
        letters = [letter["job_id"] for letter in self.json("dlq", "list")]
        if letters != [self.ids["broken"]]:
            raise Broken(f"the dead-letter queue should hold job {self.ids['broken']} alone, not {letters}")
        print(f"  {self.check_bookings()} attempts on GPUs, none at the same time on the same GPU")

    def check_bookings(self) -> int:
        """No GPU held by two attempts at once, as attempt_history tells; returns how many attempts held one."""
        rows = self.json("sql", "SELECT job_id, attempt, gpu_uuids, claimed_at, finished_at FROM attempt_history")
        held: dict[str, list[tuple[str, str, str]]] = {}
        attempts = 0
        for row in rows:
            uuids = row["gpu_uuids"]
            uuids = json.loads(uuids) if isinstance(uuids, str) else uuids
            attempts += bool(uuids)
            for uuid in uuids:
                name = f"job {row['job_id']} attempt {row['attempt']}"
                held.setdefault(uuid, []).append((row["claimed_at"], row["finished_at"], name))
        for uuid, spans in held.items():
            spans.sort()
            # Times of one form, which sort as text.
            for (_, end, before), (start, _, after) in itertools.pairwise(spans):
                if start < end:
                    raise Broken(f"GPU {uuid} was held by {before} and {after} at the same time")
        if attempts != 6:
            raise Broken(f"six attempts should have held GPUs, not {attempts}")
        return attempts

    def run(self) -> None:
        self.queue(self.up())
        self.watch()
        self.show("history")
        self.show(
            "sql", "SELECT id, name, state, gpus, round(wait_s, 1) AS wait_s, round(run_s, 1) AS run_s FROM job_history"
        )
        print("\nChecking what they did:", flush=True)
        self.check()
        print(f"\nAll as said, in {time.monotonic() - self.began:.0f} s.", flush=True)

    def clean_up(self) -> None:
        # A second Ctrl-C must not leave the daemon behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.quietly("down", "--stop-jobs", check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def last_words(self) -> None:
        for log in sorted(self.home.glob("*.log")):
            print(f"\nThe end of {log}:", file=sys.stderr)
            for line in log.read_text(errors="replace").splitlines()[-20:]:
                print(f"  {line}", file=sys.stderr)


def expect(name: str, job: dict[str, Any], **facts: object) -> None:
    for key, value in facts.items():
        if job[key] != value:
            raise Broken(f"job {name}: {key} should be {value!r}, and is {job[key]!r} ({job.get('error')})")


def real_gpus() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and listed.stdout.startswith("GPU ")


def interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    os.chdir(Path(__file__).parent.parent)
    quickstart = Quickstart(Path(tempfile.mkdtemp(prefix="gpuq-quickstart-")))
    try:
        quickstart.run()
    except (Broken, subprocess.TimeoutExpired) as error:
        quickstart.last_words()
        print(f"\nNot as it should be: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; cleaning up.", file=sys.stderr)
        return 130
    finally:
        quickstart.clean_up()
    return 0


if __name__ == "__main__":
    sys.exit(main())
