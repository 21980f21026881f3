"""Why not now: with numbers and names."""

from __future__ import annotations

from typing import Any

from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.scheduler.explain import Explainer, explain
from gpuq.scheduler.snapshot import Policy

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


def test_the_first_in_line_is_told_who_holds_what_until_when(build: Any) -> None:
    gone = Reason(ReasonCode.EXTERNAL_PROCESS, "gpu 3 is used by alice's python, pid 311, outside the queue")
    devices = build.box(3) + build.box(4, unavailable=gone)[3:]
    holdings = [
        build.held(17, 0, started_at=NOW - 60.0, expected_s=660.0),
        build.held(18, 1, started_at=NOW, expected_s=90_000.0),
    ]
    [reason] = explain(build.seen(devices, [build.job(1, 3, submitted_at=NOW)], holdings), 1, NOW)
    assert reason.code is ReasonCode.RESOURCES
    assert reason.text == (
        "needs 3 GPUs, 1 free; gpu 0 held by job 17 until about 22:23 UTC; "
        "gpu 1 held by job 18 until about 2023-11-15 23:13 UTC; "
        "gpu 3 is used by alice's python, pid 311, outside the queue; first in line"
    )


def test_those_behind_are_told_who_is_first(build: Any) -> None:
    holdings = [build.held(9, 0, started_at=NOW, expected_s=600.0)]
    jobs = [build.job(n, submitted_at=NOW) for n in (1, 2)]
    why = Explainer(build.seen(build.box(1), jobs, holdings), NOW)
    assert [reason.code for reason in why.reasons(2)] == [ReasonCode.PRIORITY, ReasonCode.RESOURCES]
    assert why.reasons(2)[0].text == "job 1 is first in line and starts at about 22:23 UTC"


def test_who_comes_before_those_ahead_of_it_says_why(build: Any) -> None:
    holdings = [build.held(7, 0, started_at=NOW, expected_s=600.0)]
    small = build.job(1, 1, 9e9, time_limit_s=3600.0, submitted_at=NOW - 10.0)
    whole = build.job(2, 4, time_limit_s=3600.0, submitted_at=NOW - 5.0)
    why = Explainer(build.seen(build.box(4), [small, whole], holdings), NOW)
    [reason] = why.reasons(1)
    assert reason.code is ReasonCode.PRIORITY
    assert reason.text == (
        "job 2 comes first (it needs all 4 GPUs and those before it would leave some idle)"
        " and would start later than 22:23 UTC if this one started now"
    )
    [reason] = why.reasons(2)
    assert reason.text == (
        "needs 4 GPUs, 3 free; gpu 0 held by job 7 until about 22:23 UTC; "
        "comes first (it needs all 4 GPUs and those before it would leave some idle)"
    )
    late = build.job(2, 4, time_limit_s=30 * 86400.0, submitted_at=NOW - 14 * 86400.0)
    [reason] = explain(build.seen(build.box(4), [small, late], holdings), 1, NOW)
    assert reason.text.startswith("job 2 comes first (it has waited 14 days) and would start later than 22:23 UTC")


def test_a_job_that_fits_but_would_push_the_first_is_told_so(build: Any) -> None:
    holdings = [build.held(9, 0, started_at=NOW, expected_s=600.0)]
    jobs = [build.job(1, 2, submitted_at=NOW), build.job(2, 1, 9e9, submitted_at=NOW)]
    [reason] = explain(build.seen(build.box(2), jobs, holdings), 2, NOW)
    assert reason == Reason(
        ReasonCode.PRIORITY, "job 1 is first in line and would start later than 22:23 UTC if this one started now"
    )


def test_a_preemptible_holder_is_named_with_the_time_at_which_it_yields(build: Any) -> None:
    holdings = [build.held(17, 0, started_at=NOW, expected_s=9000.0, preemptible=True)]
    for preemptible, until in ((False, "22:18"), (True, "00:43")):
        job = build.job(1, submitted_at=NOW, preemptible=preemptible)
        reasons = explain(build.seen(build.box(1), [job], holdings), 1, NOW)
        assert f"gpu 0 held by job 17 until about {until} UTC" in reasons[0].text


def test_sharers_and_leavers_are_named(build: Any) -> None:
    holdings = [
        build.held(7, 0, started_at=NOW, mem_mb=9_000, until=600.0),
        build.held(8, 0, started_at=NOW, mem_mb=9_000, until=300.0),
        build.held(9, 1, started_at=NOW, stopping=True),
    ]
    [reason] = explain(build.seen(build.box(2), [build.job(1, 2, gpu_mem_mb=9_000)], holdings), 1, NOW)
    assert "needs 2 GPUs with 9000 MiB each, 0 free" in reason.text
    assert "gpu 0 shared by jobs 7, 8 until about 22:23 UTC" in reason.text
    assert "gpu 1 held by job 9, which is being stopped" in reason.text


def test_a_holder_that_has_yielded_often_enough_is_named_as_such(build: Any) -> None:
    def told(**facts: Any) -> str:
        holdings = [build.held(17, 0, started_at=NOW - 600.0, expected_s=1200.0, **facts)]
        policy = build.policy(preempt_max_per_hour=2)
        [reason] = explain(build.seen(build.box(1), [build.job(1)], holdings, policy=policy), 1, NOW)
        return str(reason.text)

    spent = " (job 17 is preemptible, but has yielded 2 times within the hour, as often as it may)"
    assert f"gpu 0 held by job 17 until about 22:23 UTC{spent};" in told(preemptible=True, preemptions_last_hour=2)
    assert "yielded" not in told(preemptible=True, preemptions_last_hour=1)
    assert "yielded" not in told(preemptible=False, preemptions_last_hour=2)


def test_what_this_machine_cannot_give_is_said(build: Any) -> None:
    snapshot = build.seen(build.box(2, model="RTX 4090"), [build.job(1, 4), build.job(2, 1, gpu_model="H100")])
    assert explain(snapshot, 1, NOW) == [Reason(ReasonCode.CONSTRAINT, "needs 4 GPUs; this machine has 2")]
    assert explain(snapshot, 2, NOW) == [Reason(ReasonCode.CONSTRAINT, "needs 1 GPU of model H100; this machine has 0")]


def test_a_gpu_that_goes_to_another_job_now_is_named(build: Any) -> None:
    [first, *_] = explain(build.seen(build.box(1), [build.job(1), build.job(2)]), 2, NOW)
    assert first.code is ReasonCode.RESOURCES
    assert "gpu 0 goes to job 1 now" in first.text


def test_a_job_whose_turn_it_is_is_being_started(build: Any) -> None:
    assert explain(build.seen(build.box(1), [build.job(1)]), 1, NOW)[0].code is ReasonCode.STARTING


def test_a_job_that_is_not_waiting_has_no_reasons(build: Any) -> None:
    assert explain(build.seen(build.box(1), []), 1, NOW) == []


def test_a_job_without_gpus_can_run_on_a_machine_that_has_none(build: Any) -> None:
    snapshot = build.seen(build.box(0), [build.job(1, 0), build.job(2, 0)], policy=Policy(cpu_jobs=1))
    [reason] = explain(snapshot, 2, NOW)
    assert reason == Reason(ReasonCode.RESOURCES, "1 of at most 1 jobs without GPUs are running")
