"""What one user's files can do to others: the folders of attempts, and what root's daemon reads there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from accounts import Account, Accounts, in_thread_as

OUT_OF_MEMORY = "torch.cuda.OutOfMemoryError: CUDA out of memory. SECRET"


def refused(account: Account, act: Callable[[], object]) -> None:
    with pytest.raises(PermissionError):
        in_thread_as(account, act)


def facts(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return stat.S_IMODE(seen.st_mode), seen.st_uid


@pytest.fixture
def box(make_root_box: Callable[..., Any]) -> Any:
    made = make_root_box()
    made.up()
    return made


def test_the_folders_of_an_attempt_are_for_nobody_but_their_owners(box: Any, accounts: Accounts) -> None:
    """Bob and carol have the same primary group."""
    bob, carol = accounts.bob, accounts.carol
    script = 'echo bobs; echo "{\\"progress\\": 0.25}" > $GPUQ_RUN_DIR/progress.json; exec sleep 600'
    kept = {"command": ["own.sh", "a"], "script": script, "cwd": "/", "gpus": 0}
    job = box.call(bob, "POST", "/jobs", kept).json["id"]
    box.until(lambda: box.show(job)["progress"] == 0.25, "the job tells its progress")
    jobs = box.home / "jobs"
    above, own, records = jobs / str(job), jobs / str(job) / "1", jobs / str(job) / "1.records"
    log, checkpoint = own / "output.log", above / "checkpoint"
    assert facts(jobs) == facts(above) == (0o711, 0)
    assert facts(box.home / "daemon.log") == facts(box.home / "supervisors.log") == (0o600, 0)
    assert facts(records) == (0o700, 0)
    assert {facts(path) for path in records.iterdir()} == {(0o600, 0)}
    assert facts(own) == facts(checkpoint) == (0o700, bob.uid)
    assert facts(log) == (0o600, bob.uid)
    assert facts(own / "script") == (0o700, bob.uid)
    assert box.call(carol, "GET", f"/jobs/{job}/script").status == 403
    assert box.call(bob, "GET", f"/jobs/{job}/script").body == script.encode()

    for folder in (jobs, above, own, records, checkpoint):
        refused(carol, lambda folder=folder: os.listdir(folder))
        refused(carol, (folder / "new").touch)
        refused(carol, lambda folder=folder: folder.rename(folder.with_name("other")))
    for mode in ("r", "a", "w"):
        refused(carol, lambda mode=mode: log.open(mode))
    refused(carol, lambda: os.link(log, "/tmp/gpuq-test-link"))
    # The owner has the own folder alone.
    for folder in (jobs, above, records):
        refused(bob, (folder / "new").touch)
    refused(bob, lambda: os.listdir(records))
    refused(bob, lambda: own.rename(own.with_name("other")))
    assert in_thread_as(bob, log.read_text) == "bobs\n"
    assert (box.call(carol, "GET", f"/jobs/{job}/log").status, box.call(bob, "GET", f"/jobs/{job}/log").body) == (
        403,
        b"bobs\n",
    )

    in_thread_as(bob, lambda: [shutil.rmtree(own, ignore_errors=True)])
    assert list(own.iterdir()) == []
    assert box.call(bob, "GET", f"/jobs/{job}").json["progress"] is None
    assert box.call(bob, "GET", f"/jobs/{job}/log").body == b""
    box.gpuq("cancel", str(job))
    assert box.until_state(job, "cancelled")["outcome"] == "cancelled"


@contextmanager
def in_the_place_of(path: Path, account: Account, put: Callable[[Path], object]) -> Iterator[None]:
    kept = path.with_name("kept")
    in_thread_as(account, lambda: path.rename(kept))
    put(path)
    yield
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    in_thread_as(account, lambda: kept.rename(path))


def traps(box: Any, accounts: Accounts) -> dict[str, Callable[[Path], object]]:
    """What may stand in the place of a file of bob's: each would show `SECRET`, or block."""
    bob, text = accounts.bob, json.dumps({"progress": 0.75, "SECRET": "SECRET"})
    secret = box.home / "secret"
    secret.write_text(text)
    secret.chmod(0o600)

    def other(path: Path, owner: int) -> None:
        path.write_text(text)
        os.chown(path, owner, -1)
        path.chmod(0o644)

    def second_name(path: Path) -> None:
        other(path, bob.uid)
        os.link(path, path.with_name("second"))

    return {
        "a link": lambda path: in_thread_as(bob, lambda: path.symlink_to(secret)),
        "a pipe": lambda path: in_thread_as(bob, lambda: os.mkfifo(path)),
        "a folder": lambda path: in_thread_as(bob, path.mkdir),
        "a file of alice's": lambda path: other(path, accounts.alice.uid),
        "a file of root's": lambda path: other(path, 0),
        "a second name": second_name,
        "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    }


def test_whatever_stands_in_the_place_of_output_and_progress_shows_nothing_and_stops_nobody(
    box: Any, accounts: Accounts
) -> None:
    bob = accounts.bob
    job = box.submit_as(bob, "echo bobs; echo '{\"progress\": 0.25}' > $GPUQ_RUN_DIR/progress.json; exec sleep 600")
    box.until(lambda: box.show(job)["progress"] == 0.25, "the job tells its progress")
    own = box.home / "jobs" / str(job) / "1"
    for name, put in traps(box, accounts).items():
        with in_the_place_of(own / "progress.json", bob, put):
            (listed,) = box.call(accounts.alice, "GET", "/queue").json["jobs"]
            assert listed["progress"] is None, name
        (own / "second").unlink(missing_ok=True)
        with in_the_place_of(own / "output.log", bob, put):
            answer = box.call(bob, "GET", f"/jobs/{job}/log")
            assert (answer.status, answer.body) == (200, b""), name
        (own / "second").unlink(missing_ok=True)
    assert box.show(job)["progress"] == 0.25
    assert box.call(bob, "GET", f"/jobs/{job}/log").body == b"bobs\n"


def test_a_link_in_the_place_of_the_output_is_in_no_dead_letter_stream_or_command_line(
    box: Any, accounts: Accounts
) -> None:
    bob, secret = accounts.bob, box.home / "secret"
    secret.write_text(f"{OUT_OF_MEMORY}\n")
    secret.chmod(0o600)
    script = f"rm $GPUQ_RUN_DIR/output.log; ln -s {secret} $GPUQ_RUN_DIR/output.log; exit 1"
    job = box.submit_as(bob, script, gpus=1)
    ended = box.until_state(job, "failed")
    assert (ended["outcome"], ended["error"]) == ("exit_nonzero", "ended with exit code 1")
    stream = box.call(bob, "GET", f"/jobs/{job}/log/stream").body
    assert b"event: end" in stream
    letters = box.call(bob, "GET", "/dlq").body
    assert f'"job_id":{job}'.encode() in letters.replace(b" ", b"")
    box.down()
    direct = box.gpuq("logs", str(job)).stdout
    assert not any("SECRET" in said for said in (stream.decode(), letters.decode(), direct))


def test_records_that_a_user_forges_get_nobody_elses_process_killed(box: Any, accounts: Accounts) -> None:
    """As a user of this release does it, and of the previous one, whose records lay where the user may add names."""
    alices = box.submit_as(accounts.alice, "exec sleep 600")
    box.until_state(alices, "running")
    victim = psutil.Process(box.show(alices)["pid"])
    facts = json.loads((box.home / "jobs" / str(alices) / "1.records" / "started.json").read_text())
    forged = json.dumps({key: facts[key] for key in facts if key != "token"} | {"outcome": "succeeded", "swept": False})
    script = f"cd $GPUQ_RUN_DIR; echo '{forged}'; ln output.log exit.json; ln output.log started.json; exec sleep 600"
    bobs = [box.submit_as(accounts.bob, script) for _ in range(2)]
    for job in bobs:
        box.until_state(job, "running")
        box.until(lambda job=job: (box.home / "jobs" / str(job) / "1" / "started.json").exists(), "it forges")
    box.kill_daemon()
    folders = [box.home / "jobs" / str(job) / "1" for job in bobs]
    supervisors = [
        psutil.Process(json.loads(folder.with_name("1.records").joinpath("started.json").read_text())["supervisor_pid"])
        for folder in folders
    ]
    _into_the_layout_of_the_previous_release(folders[1], accounts.bob)
    for supervisor in supervisors:
        supervisor.send_signal(signal.SIGKILL)
    psutil.wait_procs(supervisors, 20)
    box.up()
    for job in bobs:
        box.until(lambda job=job: box.show(job)["attempts"][0]["outcome"] is not None, "its end is written")
        assert box.show(job)["attempts"][0]["outcome"] == "lost"
    assert victim.is_running()
    assert victim.status() != psutil.STATUS_ZOMBIE
    assert box.show(alices)["state"] == "running"


def _into_the_layout_of_the_previous_release(own: Path, bob: Account) -> None:
    records = own.with_name("1.records")
    for path in records.iterdir():
        if path.name not in ("started.json", "exit.json"):
            path.rename(own / path.name)
    shutil.rmtree(records)
    os.chown(own, 0, bob.gid)
    own.chmod(0o1770)
    os.chown(own / "output.log", 0, bob.gid)
    (own / "output.log").chmod(0o660)
