"""Supervisors that are killed around the end of their jobs: how many true ends are lost is measured by a script."""

from __future__ import annotations

import os

import supervisor_kills


def test_no_end_is_recorded_otherwise_than_it_was_and_none_that_had_come_is_lost() -> None:
    before = set(os.listdir("/proc/self/fd"))
    figures = supervisor_kills.measure(60, "1")
    assert figures.wrong == []
    assert figures.kills == figures.recorded + figures.swept + len(figures.late)
    # Some on each side of the end, or nothing was measured.
    assert figures.recorded > 0
    assert figures.swept > 0
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_figures_name_what_was_lost_and_what_is_wrong() -> None:
    figures = supervisor_kills.Figures(4, 1, 1, [2.5, -0.1], ["succeeded, exit code 0, last line ''"])
    assert str(figures) == (
        "4 kills: 1 recorded with their exit code, 1 lost in the middle, 2 lost after their last line "
        "(ms after the kill: -0.1, 2.5)\nwrong: succeeded, exit code 0, last line ''"
    )
