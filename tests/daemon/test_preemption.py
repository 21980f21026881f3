"""A preemptible job on a live daemon: it yields, comes back with its checkpoints, and does not go back and forth."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from box import Box

MIN_RUN_S = 1.0


def test_a_preemptible_job_yields_twice_an_hour_and_then_runs_to_its_end(
    make_box: Callable[..., Box], tmp_path: Path
) -> None:
    box = make_box(GPUQ_GPUS="sim:1", GPUQ_PREEMPT_MIN_RUN=f"{MIN_RUN_S:g}s")
    box.up()
    seen, go = tmp_path / "seen", tmp_path / "go"
    script = f'echo "$GPUQ_ATTEMPT $GPUQ_CHECKPOINT_DIR" >> {seen}; until [ -e {go} ]; do sleep 0.05; done'
    idle = box.submit("--preemptible", "--kill-grace", "2s", "--shell", script)
    for number in (1, 2):
        box.until(lambda n=number: seen.exists() and len(seen.read_text().splitlines()) == n, f"attempt {number} runs")
        normal = box.submit("--", "true")
        box.until_state(normal, "completed")
    box.until(lambda: len(seen.read_text().splitlines()) == 3, "it runs for the third time")
    waits = box.submit("--", "true")
    begun = datetime.fromisoformat(box.until_state(idle, "running")["started_at"]).timestamp()
    box.until(lambda: time.time() > begun + MIN_RUN_S, "it might have to yield again")
    # Its start is a plan in which the third could have been asked.
    box.until_state(box.submit("-g", "0", "--", "true"), "completed")
    assert (box.show(idle)["state"], box.show(waits)["state"]) == ("running", "queued")
    go.touch()
    box.until_state(waits, "completed")
    job = box.until_state(idle, "completed")
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["preempted", "preempted", "succeeded"]
    assert (job["retries_used"], job["attempt"]) == (0, 3)
    numbers, folders = zip(*(line.split() for line in seen.read_text().splitlines()), strict=True)
    assert numbers == ("1", "2", "3")
    assert len(set(folders)) == 1
    asked = [event["detail"] for event in job["events"] if event["to_state"] == "stopping"]
    assert [detail.partition(" for job")[0] for detail in asked] == ["preempted", "preempted"]
