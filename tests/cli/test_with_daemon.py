"""The command line and a real daemon: what a user does in a day."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from stub_daemon import Gpuq

pytestmark = pytest.mark.redis


@pytest.fixture
def up(gpuq: Gpuq, redis_server_path: object) -> Iterator[Gpuq]:
    gpuq.env |= {"GPUQ_GPUS": "sim:2", "GPUQ_KILL_GRACE": "2"}
    started = gpuq("up", "--detach")
    assert started.code == 0, started.err
    yield gpuq
    gpuq("down", "--stop-jobs")


def test_a_day_with_the_queue(up: Gpuq) -> None:
    done = up("run", "-g", "2", "--retries", "0", "--", "sh", "-c", "echo $GPUQ_GPU_COUNT gpus; exit 3")
    assert (done.code, done.out) == (3, "2 gpus\n")
    assert up("submit", "--wait", "--parsable", "-g", "0", "true").out == "2\n"
    assert up("logs", "1").out == "2 gpus\n"
    assert up("wait", "1", "2").code == 3
    assert up("dlq", "show", "1").out.splitlines()[-1] == "  | 2 gpus"
    assert up("retry", "1").out.startswith("job 1 (sh) is ")
    assert up("wait", "last", "1").code == 3
    assert len(json.loads(up("show", "1", "--json").out)["attempts"]) == 2
    assert [gpu["index"] for gpu in json.loads(up("gpus", "--json").out)] == [0, 1]
    assert up("gpus", "drain", "1", "--reason", "fan").code == 0
    assert "drained" in up("gpus").out
    assert up("sql", "select count(*) as n from job_history", "--csv").out == "n\n2\n"
    found = {finding["check"]: finding["status"] for finding in json.loads(up("doctor", "--json").out)}
    assert found["daemon"] == "ok"


def test_what_a_job_leaves_is_fetched_also_without_a_daemon(up: Gpuq) -> None:
    script = r"printf 'a\377b' > $GPUQ_RESULT_FILE; echo done > $GPUQ_SHORT_RESULT_FILE"
    assert up("submit", "--wait", "-g", "0", "--shell", script).code == 0
    shown = json.loads(up("show", "1", "--json").out)
    assert (shown["short_result"], shown["result_bytes"], shown["result_type"]) == ("done", 3, None)
    target = up.home / "fetched"
    assert up("result", "1", "-o", str(target)).code == 0
    assert target.read_bytes() == b"a\xffb"
    assert up("result", "1", "-o", str(up.home / "absent" / "x")).code == 2
    up("submit", "--wait", "-g", "0", "true")
    refused = up("result", "last")
    assert (refused.code, "left no result" in refused.err) == (3, True)
    up("down")
    target.unlink()
    assert up("result", "1", "-o", str(target)).code == 0
    assert target.read_bytes() == b"a\xffb"


def test_doctor_of_a_user_without_a_home_looks_at_the_daemon_alone(up: Gpuq) -> None:
    """What a daemon of that user's own would meet is no news of the one that answers."""
    done = up("doctor", "--json", GPUQ_HOME=str(up.home / "none"), GPUQ_SERVER=f"unix://{up.home}/gpuq.sock")
    found = {finding["check"]: finding["status"] for finding in json.loads(done.out)}
    assert found["daemon: agent"] == "ok"
    assert not {"home", "database", "stops", "gpus", "isolation"} & found.keys()


def test_interrupted_run_leaves_a_cancelled_job(up: Gpuq) -> None:
    process = up.popen("run", "-g", "0", "--", "sh", "-c", "echo started; exec sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert json.loads(up("show", "last", "--json").out)["state"] == "cancelled"


def test_an_interrupted_wait_says_that_the_job_goes_on(up: Gpuq) -> None:
    process = up.popen("submit", "--wait", "-g", "0", "sleep", "600")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"job 1 (sleep) is ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "job 1 goes on; `gpuq wait 1` waits for it again, `gpuq cancel 1` ends it" in err.decode()
    assert json.loads(up("show", "1", "--json").out)["state"] in {"queued", "starting", "running"}


def test_who_follows_a_job_that_waits_is_told_what_it_waits_for(up: Gpuq) -> None:
    up("submit", "-g", "0", "--begin", "1s", "--", "echo", "begun")
    followed = up("logs", "1", "-f")
    assert (followed.code, followed.out) == (0, "begun\n")
    assert followed.err.startswith("gpuq: job 1 is delayed: ")


def test_output_is_cleaned_and_logs_say_that_it_is_gone(up: Gpuq) -> None:
    script = "echo said; echo kept >$GPUQ_CHECKPOINT_DIR/state"
    assert up("run", "-g", "0", "--retries", "0", "--", "sh", "-c", script).code == 0
    asked = up("clean")
    assert (asked.code, "add --yes" in asked.err) == (2, True)
    found = json.loads(up("clean", "--dry-run", "--checkpoints", "--json").out)
    assert (found["jobs"], found["dry_run"], found["failed"]) == (1, True, [])
    assert found["output_bytes"] >= 4096 <= found["checkpoint_bytes"]
    assert up("logs", "1").out == "said\n"
    done = up("clean", "1", "--yes", "--json")
    assert {**found, "dry_run": False, "checkpoint_bytes": 0} == json.loads(done.out)
    gone = up("logs", "1")
    assert (gone.code, gone.out) == (3, "")
    assert "gpuq: the output of job 1 was removed at " in gone.err
    assert up("clean", "1", "--checkpoints", "--yes").out.startswith("1 job, 0K of output, ")
    assert up("clean", "--checkpoints", "--older-than", "0s").out == "nothing to clean\n"
    assert not (up.home / "jobs" / "1").exists()


def test_several_gpus_are_drained_at_once(up: Gpuq) -> None:
    assert up("gpus", "drain", "0-1", "--reason", "fan").out.count("is drained") == 2
    assert [gpu["state"] for gpu in json.loads(up("gpus", "--json").out)] == ["drained", "drained"]
    assert up("gpus", "undrain", "1,0").out == "gpu 1 is back in the queue\ngpu 0 is back in the queue\n"


def test_paused_queue_starts_nothing_until_it_is_resumed(up: Gpuq) -> None:
    assert up("pause", "--reason", "driver").code == 0
    up("submit", "-g", "0", "true")
    assert "QueuePaused" in up("why", "1").out
    assert up("resume").code == 0
    assert up("wait", "1", "--timeout", "20").code == 0


def test_second_daemon_is_refused(up: Gpuq) -> None:
    assert up("up", "-d").code == 4


def test_job_outlives_the_daemon_and_the_command_line_says_so(up: Gpuq) -> None:
    flag = up.home / "go"
    up("submit", "-g", "0", "--retries", "0", "--", "sh", "-c", f"until [ -e {flag} ]; do sleep 0.02; done; exit 5")
    down = up("down")
    assert (down.code, down.err) == (0, "gpuq: the daemon has stopped; running jobs go on\n")
    assert not (up.home / "gpuq.sock").exists()
    flag.touch()
    assert up("up", "-d").code == 0
    assert up("wait", "1", "--timeout", "20").code == 5


def test_token_opens_the_tcp_interface(up: Gpuq) -> None:
    import socket

    token = up("token", "create", "laptop").out.strip()
    up("down")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert up("up", "-d", "--listen", f"127.0.0.1:{port}").code == 0
    server = f"http://127.0.0.1:{port}"
    assert up("status", GPUQ_SERVER=server).code == 4
    assert up("status", GPUQ_SERVER=server, GPUQ_TOKEN="wrong").code == 4
    assert up("submit", "--parsable", "-g", "0", "true", GPUQ_SERVER=server, GPUQ_TOKEN=token).out == "1\n"
    assert up("token", "revoke", "1").code == 0
    assert up("status", GPUQ_SERVER=server, GPUQ_TOKEN=token).code == 4
