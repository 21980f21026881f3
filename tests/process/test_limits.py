"""The resource limits that a job has."""

from __future__ import annotations

import resource

import pytest

from gpuq import linux

LOW = 512


def test_a_job_has_the_limit_of_open_files_that_the_daemon_was_started_with(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(linux, "_descriptor_limit_before", None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LOW, hard))
    try:
        # As a daemon does at its start, for its own connections.
        assert linux.raise_descriptor_limit() == LOW
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > LOW
        attempt = world.shell("ulimit -Sn; ulimit -Hn")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    attempt.result()
    assert attempt.log.split() == [str(LOW), "unlimited" if hard == resource.RLIM_INFINITY else str(hard)]
