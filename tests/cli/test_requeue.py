"""`--requeue` and `gpuq requeue`, with real processes."""

from __future__ import annotations

import json

import pytest
from stub_daemon import Gpuq


@pytest.mark.redis
def test_a_requeued_job_goes_on_with_its_checkpoint(gpuq: Gpuq, redis_server_path: object) -> None:
    gpuq.env |= {"GPUQ_GPUS": "sim:2", "GPUQ_KILL_GRACE": "2", "GPUQ_RETRY_BASE": "0.01"}
    assert gpuq("up", "--detach").code == 0
    try:
        count = 'echo x >> "$GPUQ_CHECKPOINT_DIR/n"; n=$(grep -c x "$GPUQ_CHECKPOINT_DIR/n")'
        done = gpuq("run", "-g", "0", "--requeue", "--shell", f"{count}; [ $n = 3 ] || exit 75; echo part $n")
        assert (done.code, done.out) == (0, "part 3\n"), done.err
        job = json.loads(gpuq("show", "1", "--json").out)
        assert (job["state"], job["retries_used"]) == ("completed", 0)
        assert [(one["outcome"], one["exit_code"]) for one in job["attempts"]] == [
            ("exit_nonzero", 75), ("exit_nonzero", 75), ("succeeded", 0),
        ]  # fmt: skip
        wait = f"{count}; trap 'exit 0' TERM; echo try $n; [ $n = 2 ] || {{ sleep 600 & wait; }}"
        limited = gpuq("run", "-g", "0", "--requeue", "--time", "1s", "--shell", wait)
        assert (limited.code, limited.out) == (0, "try 1\ntry 2\n"), limited.err
        attempts = json.loads(gpuq("show", "2", "--json").out)["attempts"]
        assert [one["outcome"] for one in attempts] == ["time_limit", "succeeded"]

        process = gpuq.popen("run", "-g", "0", "--shell", wait)
        assert process.stdout is not None
        assert process.stdout.readline() == b"try 1\n"
        by_hand = gpuq("requeue", "3")
        assert (by_hand.code, "stopping" in by_hand.out) == (0, True), by_hand.err
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, b"try 2\n")
        job = json.loads(gpuq("show", "3", "--json").out)
        assert [one["outcome"] for one in job["attempts"]] == ["preempted", "succeeded"]
        assert any((event["detail"] or "").startswith("requeued by ") for event in job["events"])
        refused = gpuq("requeue", "3")
        assert (refused.code, "only a running job" in refused.err) == (4, True)
    finally:
        gpuq("down", "--stop-jobs")
