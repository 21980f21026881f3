"""The resource limits that a job has."""

from __future__ import annotations

import resource


def test_a_job_has_the_limit_of_open_files_that_the_daemon_was_started_with(world) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = soft + 1
    if hard != resource.RLIM_INFINITY and raised > hard:
        # As a daemon that has raised its own, the other way round.
        raised = soft - 1
    # The launcher was imported before.
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    try:
        attempt = world.shell("ulimit -Sn; ulimit -Hn")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    attempt.result()
    assert attempt.log.split() == ["unlimited" if number == -1 else str(number) for number in (soft, hard)]
