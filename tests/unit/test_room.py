"""When `gpuq doctor` warns of a disk that fills, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.cli.commands import room
from gpuq.errors import NotFound

GIB = 2**30


class Daemon:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def call(self, method: str, path: str) -> Any:
        assert (method, path) == ("GET", "/disk")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def said(free: int, full_in_s: float | None, **users: int) -> list[tuple[str, str]]:
    largest = [{"user": user, "bytes": size} for user, size in users.items()]
    answer = {"free_bytes": free * GIB, "total_bytes": 100 * GIB, "full_in_s": full_in_s, "largest": largest}
    daemon: Any = Daemon(answer)
    return room.warnings(daemon)


@pytest.mark.parametrize(("free", "full_in_s"), [(50, None), (10, None), (11, 4 * 86400.0)])
def test_a_disk_with_room_for_days_is_no_news(free: int, full_in_s: float | None) -> None:
    assert said(free, full_in_s, alice=40 * GIB) == []


def test_a_disk_that_is_nearly_full_names_who_has_most() -> None:
    [(text, hint)] = said(9, None, alice=40 * GIB, bob=GIB, carol=5)
    assert text == "9.0G are free, 9% of the disk; of what jobs left most is of alice (40.0G) and bob (1.0G)"
    assert "gpuq clean" in hint


def test_a_disk_that_is_full_soon_says_when() -> None:
    [(text, _)] = said(50, 2 * 86400.0, alice=40 * GIB)
    assert text.startswith("50.0G are free, and at the rate of the last day the disk is full in 2d00h; of what")


def test_a_daemon_of_an_earlier_release_says_nothing() -> None:
    daemon: Any = Daemon(NotFound("there is no /disk"))
    assert room.warnings(daemon) == []
