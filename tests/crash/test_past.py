"""A database of the past in a home that knows better: refused, taken on, and nothing given or run twice."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from postgres import find_postgres

from gpuq import recovery, wiring
from gpuq.domain.caller import Caller
from gpuq.domain.spec import JobSpec
from gpuq.engine.intake.submit import submit
from gpuq.errors import ForeignDatabase
from gpuq.settings import Settings


class Case:
    """A home whose database is put back to an earlier one. Four jobs wait in that: `wins`, `fails` and `runs`, which
    run before it is put back, and `rests`, which does not. Three came later: `stray` runs, `ended` has ended, `quiet`
    left no trace."""

    def __init__(self, site: Any) -> None:
        self.site, self.box = site, site.box
        self.box.up()
        self.box.gpuq("pause")
        self.wins = self.submit("--", *site.diary.script())
        self.fails = self.submit("--retries", "0", "--", *site.diary.script(code=3))
        self.runs = self.submit("--", *site.diary.gated())
        self.rests = self.submit("--hold", "--", *site.diary.script())

    def submit(self, *words: str) -> int:
        return int(self.box.submit("-g", "1", *words))

    def go_on(self) -> None:
        """What the earlier database does not know."""
        site = self.site
        self.box.gpuq("resume")
        self.stray = self.submit("--", *site.diary.gated(gate="gate-stray"))
        self.ended = self.submit("--", *site.diary.script())
        self.quiet = self.submit("--hold", "--", "true")
        for job_id, state in ((self.wins, "completed"), (self.fails, "failed"), (self.ended, "completed")):
            self.box.until_state(job_id, state)
        for job_id in (self.runs, self.stray):
            self.box.until_state(job_id, "running")

    def check_refused(self) -> None:
        refused = self.box.gpuq("up", "-d", code=4).stderr
        assert "older than this home" in refused
        assert "gpuq db adopt" in refused
        assert "gpuq db adopt" in self.box.gpuq("submit", "--", "true", code=4).stderr
        assert any("older than this home" in one["detail"] for one in self.box_doctor() if one["status"] == "fail")
        # Looking is allowed.
        assert {job["id"] for job in self.box.json("status", "-a")} == {self.wins, self.fails, self.runs, self.rests}

    def check_taken_on(self) -> None:
        assert "older than this home" in self.box.gpuq("db", "adopt", code=2).stderr
        told = self.box.gpuq("db", "adopt", "--yes").stderr
        assert f"completed, as their folders say: jobs {self.wins}\n" in told
        assert f"held, because they ran already: jobs {self.fails}, {self.runs};" in told
        assert f"only their output is left: jobs {self.stray}, {self.ended}\n" in told
        assert "nothing to do" in self.box.gpuq("db", "adopt").stderr
        self.box.up()
        self.box.gpuq("resume")
        assert self.submit("--hold", "--", "true") > self.quiet, "an id was given twice"
        # What was known of the end, and how often each ran, as the jobs themselves say.
        won = self.box.show(self.wins)
        assert (won["state"], won["exit_code"], [one["outcome"] for one in won["attempts"]]) == (
            "completed",
            0,
            ["succeeded"],
        )
        held = self.box.show(self.fails)
        assert (held["state"], held["reason"]["code"]) == ("held", "HeldByAdmin")
        assert f"`gpuq release {self.fails}` runs it again" in held["reason"]["text"]
        assert [(one["number"], one["outcome"], one["exit_code"]) for one in held["attempts"]] == [
            (1, "exit_nonzero", 3)
        ]
        assert self.box.show(self.rests)["reason"]["code"] == "HeldByUser"

    def check_strays(self) -> None:
        """Both hold their GPUs, and everybody is told."""
        gpus = self.box.json("gpus")
        held = [gpu for gpu in gpus if gpu["state"] == "external"]
        assert len(held) == 2
        for job_id in (self.runs, self.stray):
            assert any(f"job {job_id} attempt 1" in gpu["reason"]["text"] for gpu in held)
        wide = int(self.box.submit("-g", "4", "--", *self.site.diary.script()))

        def told() -> bool:
            why = self.box.show(wide)["reason"]
            return why["code"] == "ExternalProcess" and f"job {self.stray} attempt 1" in why["text"]

        self.box.until(told, "the job that needs all GPUs knows who has them")
        found = [one["detail"] for one in self.box_doctor() if one["check"] == "stray"]
        assert len(found) == 2
        # There is never a second attempt beside one that lives.
        assert "its attempt 1 runs" in self.box.gpuq("release", str(self.runs), code=4).stderr
        assert "daemon" in self.box.gpuq("doctor", "--import-strays", code=4).stderr
        self.wide = wide

    def box_doctor(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.box.gpuq("doctor", "--json", code=None).stdout)
        return found

    def check_imported(self) -> None:
        self.box.down()
        told = self.box.gpuq("doctor", "--import-strays").stderr
        assert told.count("imported; `gpuq up` takes it over") == 2
        assert "nothing runs here" in self.box.gpuq("doctor", "--import-strays").stderr
        self.box.up()
        for job_id in (self.runs, self.stray):
            job = self.box.show(job_id)
            assert (job["state"], job["attempt"], len(job["gpu_indices"])) == ("running", 1, 1)
            assert any("imported" in (event["detail"] or "") for event in job["events"])
        self.site.diary.open_gate()
        self.site.diary.open_gate("gate-stray")
        for job_id in (self.runs, self.stray, self.wide):
            assert self.box.until_state(job_id, "completed", "failed")["state"] == "completed"
        # Whoever wants it run again says so, and then it runs.
        self.box.gpuq("release", str(self.fails))
        again = self.box.until_state(self.fails, "failed")
        assert [one["number"] for one in again["attempts"]] == [1, 2]
        runs = {job_id: len(self.site.diary.lines("start", job_id)) for job_id in (self.wins, self.runs, self.stray)}
        assert set(runs.values()) == {1}, "something ran twice"


def test_a_copied_file_in_the_place_of_a_newer_one(make_site: Callable[..., Any]) -> None:
    case = Case(make_site())
    home = case.box.home
    copy = home / "copy.db"
    case.box.gpuq("db", "backup", str(copy))
    case.go_on()
    case.box.kill_daemon()
    for name in ("gpuq.db-wal", "gpuq.db-shm"):
        (home / name).unlink()
    (home / "gpuq.db").write_bytes(copy.read_bytes())
    case.check_refused()
    case.check_taken_on()
    case.check_strays()
    case.check_imported()


@pytest.mark.postgres
def test_a_dump_in_the_place_of_a_newer_database(
    make_site: Callable[..., Any], postgres_url: str, tmp_path: Path
) -> None:
    programs = find_postgres()
    assert programs is not None
    url, dump = postgres_url.replace("+psycopg", ""), tmp_path / "dump"
    site = make_site(GPUQ_DATABASE_URL=postgres_url)
    site.database = postgres_url
    case = Case(site)
    subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, url], check=True)
    case.go_on()
    case.box.kill_daemon()
    subprocess.run([programs / "pg_restore", "--clean", "--if-exists", "-d", url, dump], check=True)
    case.check_refused()
    case.check_taken_on()
    case.check_strays()
    told = case.box.gpuq("doctor", "--end-strays").stderr
    assert told.count("told to stop") == 2
    # Their GPUs come free, for the job that waits for all four.
    assert case.box.until_state(case.wide, "completed", "failed")["state"] == "completed"
    assert "nothing runs here" in case.box.gpuq("doctor", "--end-strays").stderr


@pytest.mark.parametrize("what", ["whole", "no log", "a log cut short", "new", "the copy of the bare file"])
def test_what_a_killed_daemon_left_is_taken_whole_or_not_at_all(tmp_path: Path, what: str) -> None:
    """Files copied while the database is open: that is what SIGKILL leaves."""
    alive, killed = tmp_path / "alive", tmp_path / "killed"
    me = Caller(pwd.getpwuid(os.geteuid()).pw_name, uid=os.geteuid(), gid=os.getegid())
    ctx = wiring.open_context(Settings(home=alive, gpus="sim:1"), roles={"agent"})
    bare = (alive / "gpuq.db").read_bytes()
    spec = JobSpec.parse({"command": ["true"], "hold": True})
    last = [submit(ctx, [spec], me)[0].id for _ in range(3)][-1]
    shutil.copytree(alive, killed)
    ctx.records.close()
    ctx.gpus.close()
    wal = killed / "gpuq.db-wal"
    if what == "a log cut short":
        # The last commit is lost, all before it is whole.
        os.truncate(wal, wal.stat().st_size - 1)
    elif what != "whole":
        wal.unlink()
        (killed / "gpuq.db-shm").unlink()
    if what == "new":
        (killed / "gpuq.db").unlink()
    elif what == "the copy of the bare file":
        (killed / "gpuq.db").write_bytes(bare)
    settings = Settings(home=killed, gpus="sim:1")
    if what == "whole":
        started = wiring.open_context(settings, roles={"agent"})
    else:
        with pytest.raises(ForeignDatabase) as refusal:
            wiring.open_context(settings, roles={"agent"})
        assert "gpuq db adopt" in (refusal.value.hint or "")
        recovery.adopt(settings)
        started = wiring.open_context(settings, roles={"agent"})
    assert submit(started, [spec], me)[0].id > last, "an id was given twice"
    started.records.close()
    started.gpus.close()


def test_a_restore_where_the_database_is_gone_gives_no_id_twice(tmp_path: Path) -> None:
    """What the home has reserved tells where ids go on."""
    settings = Settings(home=tmp_path / "home", gpus="sim:1")
    me = Caller(pwd.getpwuid(os.geteuid()).pw_name, uid=os.geteuid(), gid=os.getegid())
    spec = JobSpec.parse({"command": ["true"], "hold": True})
    ctx = wiring.open_context(settings, roles={"agent"})
    submit(ctx, [spec], me)
    wiring.database().backup(settings.database_url, tmp_path / "copy.db")
    last = submit(ctx, [spec], me)[0].id
    ctx.records.close()
    ctx.gpus.close()
    for path in settings.home.glob("gpuq.db*"):
        path.unlink()
    assert recovery.loss(settings, tmp_path / "copy.db").given_to == last
    # Power was cut before this reached the disk.
    (settings.home / "installation.latest").unlink()
    recovery.restore(settings, tmp_path / "copy.db")
    started = wiring.open_context(settings, roles={"agent"})
    assert submit(started, [spec], me)[0].id > last
    started.records.close()
    started.gpus.close()
    private = [path for path in settings.home.iterdir() if path.name.startswith(("installation", "strays"))]
    assert len(private) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def test_a_restore_tells_what_is_lost_and_leaves_no_job_unseen(make_site: Callable[..., Any]) -> None:
    site = make_site()
    box, diary = site.box, site.diary
    box.up()
    known = box.submit("-g", "1", "--", *diary.gated())
    box.until_state(known, "running")
    copy = str(box.home / "copy.db")
    box.gpuq("db", "backup", copy)
    later = box.submit("-g", "1", "--", *diary.gated())
    box.until_state(later, "running")
    last = box.submit("--hold", "--", "true")
    asked = box.gpuq("db", "restore", copy, code=2).stderr
    assert f"jobs {later} to {last}, submitted since the copy" in asked
    assert f"runs now: job {later} attempt 1" in asked
    assert "the daemon is running" in box.gpuq("db", "restore", copy, "--yes", code=4).stderr
    box.down()
    assert "2 attempts run" in box.gpuq("db", "restore", copy, "--yes", code=4).stderr
    told = box.gpuq("db", "restore", copy, "--yes", "--leave-running").stderr
    assert f"runs and is not in the database: job {later} attempt 1" in told
    assert f"job {known} attempt 1" not in told.partition("restored from")[2]
    box.up()
    assert box.show(known)["state"] == "running"
    assert sorted(gpu["state"] for gpu in box.json("gpus")) == ["external", "free", "free", "leased"]
    assert box.submit("--hold", "--", "true") == last + 1, "ids go on where they were"
    diary.open_gate()
    assert box.until_state(known, "completed")["attempt"] == 1
    box.until(lambda: {gpu["state"] for gpu in box.json("gpus")} == {"free"}, "the stray has ended")
