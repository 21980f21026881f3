"""A supervisor of root's runs nothing without being told as whom, whatever wrote its spec."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.supervise import spawn

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root could run a job as root by mistake")

BARE = {"argv": ["true"], "env": {"PATH": "/usr/bin:/bin"}, "cwd": "/"}
UNKNOWN = ({}, {"uid": 0}, {"gid": 0}, {"uid": None, "gid": 0}, {"uid": "0", "gid": "0"}, {"uid": True, "gid": 0},
           {"uid": -1, "gid": 0}, {"uid": 0, "gid": -1}, {"uid": 1.0, "gid": 1})  # fmt: skip


@pytest.mark.parametrize("who", UNKNOWN)
def test_nothing_is_started_without_both_uid_and_gid(who: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("fork", "posix_spawn"):
        monkeypatch.setattr(os, way, lambda *_, **__: pytest.fail("a process was made"))
    with pytest.raises(spawn.CannotRun, match="does not say as which user and group"):
        spawn.spawn(spawn.AttemptSpec({**BARE, **who}), 1)


@pytest.mark.parametrize("who", [{"uid": None, "gid": None}, {"uid": None, "gid": 0}])
def test_a_supervisor_refuses_such_a_spec_by_itself(world: Any, who: dict[str, Any]) -> None:
    ran = world.root / "ran"
    attempt = world.hand_over(world.order("touch", str(ran), **who))
    attempt.hear()
    result = attempt.result()
    assert result.outcome is Outcome.LAUNCH_ERROR
    assert "does not say as which user and group" in (result.error or "")
    assert not ran.exists()


def test_a_job_of_roots_own_says_so(world: Any) -> None:
    attempt = world.start("id", "-u", uid=0, gid=0)
    assert attempt.result().outcome is Outcome.SUCCEEDED
    assert attempt.log == "0\n"
