"""What a job takes over from its submitter beside variables, and what a daemon of an earlier release is spared."""

from __future__ import annotations

import os
import resource
from typing import Any

import pytest

from gpuq.client.earlier import without_new_fields
from gpuq.client.surroundings import surroundings
from gpuq.domain.spec import JobSpec


def test_umask_limits_and_niceness_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_CORE: (0, -1), resource.RLIMIT_NOFILE: (100, 200), resource.RLIMIT_AS: (7 << 30, -1)}
    monkeypatch.setattr(resource, "getrlimit", lambda number: limits.get(number, (-1, -1)))
    monkeypatch.setattr(os, "getpriority", lambda which, who: 4)
    before = os.umask(0o027)
    try:
        found = surroundings()
    finally:
        os.umask(before)
    assert found == {
        "limits": {"core": 0, "memlock": -1, "nofile": 100, "stack": -1, "as": 7 << 30}, "umask": 0o027, "nice": 4,
    }  # fmt: skip
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
