"""What a job takes over from its submitter beside variables, and what a daemon of an earlier release is spared."""

from __future__ import annotations

import os
import resource
from typing import Any

import pytest

from gpuq.client.earlier import without_new_fields
from gpuq.client.environment import soft_limits, surroundings
from gpuq.domain.spec import JobSpec

LIMITS = b"""Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max stack size            8388608              unlimited            bytes
Max core file size        0                    unlimited            bytes
Max resident set          7                    7                    bytes
Max open files            100                  200                  files
Max locked memory         unlimited            unlimited            bytes
Max address space         7516192768           unlimited            bytes
"""


def test_limits_that_are_set_and_those_that_programs_need_go_along() -> None:
    expected = {"core": 0, "memlock": -1, "nofile": 100, "stack": 8 << 20, "as": 7 << 30}
    assert soft_limits(LIMITS) == expected
    assert soft_limits(b"") == {}
    JobSpec.parse({"command": ["x"], "limits": expected})


def test_umask_limits_and_niceness_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpriority", lambda which, who: 4)
    before = os.umask(0o027)
    try:
        found = surroundings()
    finally:
        os.umask(before)
    assert (found["umask"], found["nice"]) == (0o027, 4)
    assert found["limits"]["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    JobSpec.parse({"command": ["x"], **found})


def test_what_a_job_has_anyhow_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpriority", lambda which, who: -5)
    before = os.umask(0o022)
    try:
        assert surroundings().keys() == {"limits"}
    finally:
        os.umask(before)


NEW = {"secrets": {"B_TOKEN": "1", "A_KEY": "2"}, "umask": 7, "limits": {}, "nice": 1}


@pytest.mark.parametrize(
    ("body", "less"),
    [
        ({"command": ["x"], **NEW}, {"command": ["x"]}),
        ([{"command": ["x"], **NEW}, {"command": ["y"]}], [{"command": ["x"]}, {"command": ["y"]}]),
        ({"jobs": [{"command": ["x"], "nice": 1}], **NEW}, {"jobs": [{"command": ["x"]}]}),
    ],
)
def test_an_earlier_daemon_gets_what_it_knows_and_the_secrets_left_out_are_named(body: Any, less: Any) -> None:
    assert without_new_fields(body, "item 1 of the list: unknown field 'umask'") == (less, ["A_KEY", "B_TOKEN"])
    assert without_new_fields(body, "unknown field 'gpu'") is None
    assert without_new_fields(body, "umask: must be at most 511") is None
