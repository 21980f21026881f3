"""At rest everything that remembers has to say the same: each disagreement that is planted here is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import agreement
import pytest
from agreement import Agreement
from fakeredis import FakeRedis

JOBS = [{"id": 1}]
ATTEMPTS = [{"job_id": 1, "number": 1}]


class Box:
    """An installation that has come to rest after one run of one job."""

    def __init__(self, folder: Path) -> None:
        self.volume = folder / "volume"
        self.records = self.volume / "jobs" / "1" / "1.records"
        self.records.mkdir(parents=True)
        (self.volume / "jobs" / "1" / "1").mkdir()
        self.link = FakeRedis(decode_responses=True)
        self.busy: dict[int, list[tuple[int, int]]] = {}

    def redis(self) -> FakeRedis:
        return self.link

    def supervisors(self) -> list[Any]:
        return [type("P", (), {"pid": pid}) for pid in self.busy]

    def runs_of(self, supervisor: Any) -> list[tuple[int, int]]:
        return self.busy[supervisor.pid]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(agreement, "GROUPS", tmp_path / "groups")
    return Box(tmp_path)


def group(box: Box, *pids: int) -> Path:
    seen = box.volume.stat()
    found = agreement.GROUPS / "unified" / f"gpuq-{seen.st_dev:x}-{seen.st_ino:x}-f" / "7-1"
    found.mkdir(parents=True)
    (found / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return found


def promises(box: Box) -> set[str]:
    return {promise for promise, _ in Agreement(box).at_rest(JOBS, ATTEMPTS)}  # type: ignore[arg-type]


def test_a_queue_at_rest_has_no_disagreement(box: Box) -> None:
    assert promises(box) == set()
    assert list(Agreement(box).after()) == []  # type: ignore[arg-type]


def test_a_member_of_the_hot_queue_that_is_left_over_is_found(box: Box) -> None:
    box.link.zadd("gpuq:queue:2", {"000000000001": 1.0})
    assert promises(box) == {"P5"}


def test_a_folder_of_a_job_that_is_in_no_row_is_found(box: Box) -> None:
    (box.volume / "jobs" / "2" / "1").mkdir(parents=True)
    assert promises(box) == {"P1"}


@pytest.mark.parametrize("name", ["2", "2.records"])
def test_a_folder_of_an_attempt_that_is_in_no_row_is_found(box: Box, name: str) -> None:
    (box.volume / "jobs" / "1" / name).mkdir()
    assert promises(box) == {"P2"}


@pytest.mark.parametrize("name", [".exit.json.0123456789ab", "exit.json.tmp"])
def test_a_file_that_was_never_put_in_its_place_is_found(box: Box, name: str) -> None:
    (box.records / name).touch()
    assert promises(box) == {"P4"}


def test_a_process_that_is_still_in_a_control_group_is_found(box: Box) -> None:
    group(box, 4711)
    assert promises(box) == {"P7"}


def test_a_supervisor_that_waits_for_its_next_attempt_may_be_in_its_group(box: Box) -> None:
    group(box, 4711)
    box.busy[4711] = []
    assert promises(box) == set()
    box.busy[4711] = [(1, 1)]
    assert promises(box) == {"P7"}


def test_a_control_group_that_outlives_the_daemon_is_found(box: Box) -> None:
    group(box)
    assert {promise for promise, _ in Agreement(box).after()} == {"P7"}  # type: ignore[arg-type]


def test_the_control_groups_of_another_home_are_not_judged(box: Box) -> None:
    other = agreement.GROUPS / "unified" / "gpuq-1-1-f"
    other.mkdir(parents=True)
    (other / "cgroup.procs").write_text("4711\n")
    assert promises(box) == set()
