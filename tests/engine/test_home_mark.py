"""What a home remembers of its database: never ahead of it, cheap to keep, and enough to know an older one."""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.engine import home_mark
from gpuq.engine.home_mark import IDS_AHEAD, LATEST, NAME, HomeMark, Remembered
from gpuq.engine.recovery.recognise import recognise, recognise_again, why_foreign
from gpuq.errors import ForeignDatabase
from gpuq.ports.records import Standing


def at(name: str | None, last_event: int, last_job: int) -> Standing:
    """All that was given is committed."""
    return Standing(name, last_event, last_job, last_event, last_job)


KNOWN = Remembered("a", last_event=20, last_job=7, ids_up_to=5000)


@pytest.fixture
def mark(tmp_path: Path) -> HomeMark:
    made = HomeMark(tmp_path)
    assert made.read() is None
    made.take("a", at("a", 20, 7))
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the kernel was asked, from now on."""
    counted: Counter[str] = Counter()

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted_call(*args: Any, **options: Any) -> Any:
            counted[name] += 1
            return call(*args, **options)

        return counted_call

    for name in ("open", "fsync", "pwrite", "write"):
        monkeypatch.setattr(os, name, counting(name, getattr(os, name)))
    return counted


@pytest.mark.parametrize(
    ("remembered", "standing", "highest_folder", "why"),
    [
        (None, at(None, 0, 0), 0, None),
        (None, at("b", 9, 3), 3, None),
        (None, at(None, 9, 3), 4, "job 4 has a folder"),
        (KNOWN, at("a", 20, 7), 7, None),
        (KNOWN, at("a", 21, 8), 0, None),
        # Ids that were only reserved are not missed.
        (KNOWN, at("a", 20, 7), 0, None),
        (KNOWN, at("a", 19, 7), 0, "lacks the last 1 events"),
        (KNOWN, at("a", 20, 6), 0, "up to 6, and 7 was given"),
        (KNOWN, at("a", 20, 7), 8, "job 8 has a folder"),
        (KNOWN, at("b", 99, 99), 0, "another installation"),
        (KNOWN, at(None, 99, 99), 0, "a new one, or an old copy"),
    ],
)
def test_a_database_is_foreign_when_it_lacks_what_the_home_knows(
    remembered: Remembered | None, standing: Standing, highest_folder: int, why: str | None
) -> None:
    found = why_foreign(remembered, standing, highest_folder)
    assert (found is None) if why is None else (found is not None and why in found)


def test_what_is_noted_after_a_commit_is_read_by_the_next_process(mark: HomeMark, tmp_path: Path) -> None:
    mark.note(21, None)
    mark.note(None, 9)
    mark.note(22, 8)
    assert HomeMark(tmp_path).read() == Remembered("a", last_event=22, last_job=9, ids_up_to=7 + IDS_AHEAD)


def test_a_note_is_one_write_into_the_page_cache_and_nothing_else(mark: HomeMark, calls: Counter[str]) -> None:
    for number in range(100):
        mark.note(21 + number, 8 + number)
    # Nothing new is not written.
    mark.note(30, 8)
    mark.note(None, None)
    assert calls == {"open": 1, "pwrite": 100}
    mark.close()
    mark.close()


def test_a_block_of_ids_costs_one_durable_write(mark: HomeMark, calls: Counter[str], tmp_path: Path) -> None:
    for job_id in range(8, 8 + 4 * IDS_AHEAD):
        mark.reserve(job_id)
    # The file and its folder, once a block.
    assert calls["fsync"] == 2 * 3
    remembered = HomeMark(tmp_path).read()
    assert remembered is not None
    assert remembered.ids_up_to >= 7 + 4 * IDS_AHEAD
    assert remembered.last_job == 7, "reserved is not given"


def test_maintenance_reserves_ids_before_a_submission_has_to(mark: HomeMark, calls: Counter[str]) -> None:
    mark.keep(at("a", 20, 7))
    assert calls["fsync"] == 0, "nothing has changed"
    mark.keep(at("a", 3000, 7 + IDS_AHEAD // 2 + 1))
    calls.clear()
    mark.reserve(7 + IDS_AHEAD + 2)
    assert calls["fsync"] == 0


def test_an_id_that_was_given_and_not_committed_is_not_remembered(mark: HomeMark, tmp_path: Path) -> None:
    """A sequence of PostgreSQL is ahead of what a crash leaves."""
    mark.keep(Standing("a", last_event=99, last_job=98, committed_event=21, committed_job=8))
    remembered = HomeMark(tmp_path).read()
    assert remembered is not None
    assert (remembered.last_event, remembered.last_job) == (21, 8)


def test_what_is_kept_never_goes_back_and_survives_the_loss_of_the_notes(mark: HomeMark, tmp_path: Path) -> None:
    mark.keep(at("a", 40, 9))
    mark.keep(at("a", 30, 8))
    (tmp_path / LATEST).unlink(missing_ok=True)
    assert HomeMark(tmp_path).read() == Remembered("a", 40, 9, 7 + IDS_AHEAD)


@pytest.mark.parametrize(
    "content", [b"", b"a 00", b"a " + b"9" * 18 + b" " + b"9" * 18, b"b " + b"9" * 18 + b" " + b"9" * 18 + b"\n"]
)
def test_notes_that_are_torn_or_of_another_database_are_not_believed(
    mark: HomeMark, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / LATEST).write_bytes(content)
    assert HomeMark(tmp_path).read() == Remembered("a", 20, 7, 7 + IDS_AHEAD)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"installation": "a", "last_event": "x"}', b"\xff"])
def test_a_damaged_file_is_no_ground_to_refuse_a_database(mark: HomeMark, tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert HomeMark(tmp_path).read() is None


def test_a_full_disk_keeps_nobody_from_submitting_and_starting(
    mark: HomeMark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    identity = PlayedIdentity(at("a", 50, 9))
    monkeypatch.setattr(home_mark, "lock_file", full)
    mark.reserve(7 + IDS_AHEAD + 1)
    assert start(identity, tmp_path) is None
    (tmp_path / NAME).unlink()
    assert start(identity, tmp_path) is None


class PlayedIdentity:
    """A database that says what the test says."""

    def __init__(self, standing: Standing) -> None:
        self.now = standing

    def standing(self) -> Standing:
        return self.now

    def name_first(self, name: str) -> str:
        name = self.now.installation or name
        self.now = at(name, self.now.last_event, self.now.last_job)
        return name

    def take_on(self, name: str, *, last_job: int) -> Standing:
        self.now = Standing(name, self.now.last_event, max(self.now.last_job, last_job))
        return self.now


def start(identity: PlayedIdentity, home: Path, *, daemon: bool = True) -> ForeignDatabase | None:
    names = map("name-{}".format, itertools.count(1))
    return recognise(identity, HomeMark(home), highest_folder=0, daemon=daemon, new_name=lambda: next(names))


@pytest.mark.parametrize("daemon", [True, False])
def test_the_first_process_of_a_home_names_its_database(tmp_path: Path, daemon: bool) -> None:
    identity = PlayedIdentity(at(None, 4, 2))
    assert start(identity, tmp_path, daemon=daemon) is None
    assert identity.now.installation == "name-1"
    assert HomeMark(tmp_path).read() == Remembered("name-1", 4, 2, 2 + IDS_AHEAD)


def test_a_second_home_takes_the_name_that_the_database_has(tmp_path: Path) -> None:
    identity = PlayedIdentity(at("theirs", 4, 2))
    assert start(identity, tmp_path) is None
    remembered = HomeMark(tmp_path).read()
    assert remembered is not None
    assert remembered.installation == "theirs"


def test_a_refusal_changes_nothing_and_says_what_to_do(mark: HomeMark, tmp_path: Path) -> None:
    for older in (at("a", 3, 1), at(None, 0, 0), at("b", 99, 99)):
        identity = PlayedIdentity(older)
        refusal = start(identity, tmp_path)
        assert refusal is not None
        assert "gpuq db adopt" in (refusal.hint or "")
        assert identity.now == older
    assert HomeMark(tmp_path).read() == Remembered("a", 20, 7, 7 + IDS_AHEAD)


class _Now:
    """A database that stands where it is told to."""

    def __init__(self, now: Standing) -> None:
        self.now = now

    def standing(self) -> Standing:
        return self.now


def test_a_database_that_goes_back_under_a_daemon_is_refused_and_one_that_goes_on_is_remembered(
    mark: HomeMark, tmp_path: Path
) -> None:
    assert mark.read() is not None
    refused: list[str] = []
    database: Any = _Now(at("a", 25, 8))
    recognise_again(database, mark, refused.append)
    assert refused == []
    database.now = at("a", 22, 8)
    recognise_again(database, mark, refused.append)
    database.now = at("b", 99, 99)
    recognise_again(database, mark, refused.append)
    assert ["lacks the last 3 events" in refused[0], "another installation" in refused[1]] == [True, True]
    found = HomeMark(tmp_path).read()
    assert found is not None
    assert (found.installation, found.last_event, found.last_job) == ("a", 25, 8)
