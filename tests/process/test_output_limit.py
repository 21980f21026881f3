"""A job that writes more than it may is stopped by its supervisor, and that is its end; with real processes."""

from __future__ import annotations

import signal
from typing import Any

from gpuq.domain.outcome import Outcome

MIB = 1024**2


def test_a_job_that_writes_more_than_it_may_is_stopped(world: Any) -> None:
    attempt = world.start("yes", max_output_bytes=MIB)
    result = attempt.result()
    assert (result.outcome, result.error) == (Outcome.OUTPUT_LIMIT, "output exceeded 1 MiB (GPUQ_MAX_OUTPUT)")
    assert result.signal == signal.SIGKILL, "what is far beyond its limit has no grace"


def test_one_that_goes_a_little_beyond_may_end_in_good_order(world: Any) -> None:
    script = "trap 'echo tidied up; exit 0' TERM; head -c 1100000 /dev/zero; while :; do sleep 0.05; done"
    attempt = world.shell(script, max_output_bytes=MIB)
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.OUTPUT_LIMIT, 0)
    assert attempt.log.endswith("tidied up\n")


def test_output_to_a_deleted_or_renamed_log_counts_too(world: Any) -> None:
    order = world.order("/bin/sh", "-c", f"rm {world.root}/jobs/1/1/output.log; exec yes", max_output_bytes=MIB)
    assert world.launch(order).result().outcome is Outcome.OUTPUT_LIMIT


def test_other_files_and_a_hole_in_the_log_do_not_count(world: Any) -> None:
    bell = world.bell()
    log = f"{world.root}/jobs/1/1/output.log"
    script = (
        f"truncate -s 1G {log}; head -c 3000000 /dev/zero > {world.root}/checkpoint; echo here > {bell.path};"
        # Longer than the longest pause between two looks.
        " sleep 1.3; exit 7"
    )
    attempt = world.shell(script, max_output_bytes=MIB)
    bell.wait()
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 7)


def test_a_cancel_stays_a_cancel_although_the_limit_is_passed(world: Any) -> None:
    bell = world.bell()
    script = f"trap '' TERM; echo up > {bell.path}; while :; do sleep 0.05; done"
    attempt = world.shell(script, max_output_bytes=MIB)
    bell.wait()
    attempt.stop(grace_s=2.0)
    with open(attempt.order.log_path, "ab") as log:
        log.write(bytes(1_100_000))
    assert attempt.result().outcome is Outcome.CANCELLED


def test_a_spec_of_the_release_before_has_no_limit(world: Any) -> None:
    attempt = world.shell("head -c 3000000 /dev/zero; sleep 0.3; exit 3")
    assert attempt.result().outcome is Outcome.EXIT_NONZERO
