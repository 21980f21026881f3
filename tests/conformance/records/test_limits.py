"""What limits ask of a database: used GPU-seconds by the hour, several values at once, and the audit."""

from __future__ import annotations

from typing import Any

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.ports.records import LimitChange
from gpuq.stores.sql import SqlRecords


def test_gpu_seconds_are_summed_by_user_in_the_hour_of_the_end(jobs: Any, records: SqlRecords) -> None:
    now = jobs.NOW
    for gpus, end in (((3, 1), now + 12), ((2,), now + 7), ((), now + 9), ((0,), now + 7200)):
        job_id = jobs.add()
        token = jobs.claim(job_id, at=now + 1, gpus=gpus, node="box")
        with records.write() as tx:
            tx.launched(job_id, 1, token, Launched(11, 1, 12, 2, now + 2))
            tx.end_attempt(job_id, 1, token, Result(Outcome.SUCCEEDED, exit_code=0, finished_at=end))
    with records.read() as tx:
        [(owner, seconds)] = tx.gpu_seconds(now).items()
        assert (owner[1], round(seconds, 6)) == (None, 2 * 10 + 5 + 7198)
        assert [round(part, 6) for part in tx.gpu_seconds(now + 7200).values()] == [7198]


def test_several_values_and_the_audit(records: SqlRecords) -> None:
    with records.write() as tx:
        tx.set_value("a:b", {"x": 1}, 5.0)
        tx.set_value("c", "text", 5.0)
        tx.add_limit_change(LimitChange(5.0, "root", "user", "ann", "gpus", None, "4"))
    with records.read() as tx:
        assert tx.some_values(["a:b", "c", "none"]) == {"a:b": {"x": 1}, "c": "text"}
        assert tx.some_values([]) == {}
