"""The typed client against the server that it is made for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpuq import Client, NotFound, UsageError, WrongState
from gpuq.client.submission import DEFAULTS, Changes, Options, Submission
from gpuq.client.values import Value
from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.engine.actions.change import CHANGEABLE


@pytest.fixture
def client(served: Any) -> Iterator[Client]:
    with Client(server=f"unix://{served.socket}") as client:
        yield client


def unknown(value: object) -> list[str]:
    """Fields that the server sent and the classes do not have, of a value and all within it."""
    if isinstance(value, tuple | list):
        return [name for each in value for name in unknown(each)]
    if not isinstance(value, Value):
        return []
    inner = [name for each in dataclasses.fields(value) for name in unknown(getattr(value, each.name))]
    return [f"{type(value).__name__}.{name}" for name in value.extra] + inner


def test_every_field_of_a_real_answer_is_in_the_class(client: Client, start: Callable[..., Any]) -> None:
    job = client.submit(["true"], env={}, gpus=2, time_limit_s=60)
    waiting = client.submit(["true"], env={}, after=[job])
    run = start(job.id, (0, 1))
    shown = client.job(job.id)
    gpus = client.gpus()
    assert [gpu.job for gpu in gpus[:2]] == [job.id, job.id]
    assert (shown.expected is None, len(shown.attempts), len(shown.events)) == (False, 1, 3)
    reasons = client.why(waiting.id)
    assert reasons.reason is not None
    run.end(Outcome.EXIT_NONZERO, JobState.FAILED, exit_code=1)
    client.limit_group("nlp", 2)
    client.pause("driver")
    answers: list[Any] = [job, waiting, shown, gpus, reasons, client.queue(), client.history(), client.groups()]
    answers += [client.dead_letters(), client.stats(), client.sql("SELECT 1 AS one"), client.report("usage")]
    answers += [client.check({"command": ["true"]}), client.jobs(), client.pause()]
    assert unknown(answers) == []


def test_what_stands_in_the_json_stands_in_the_value(client: Client) -> None:
    job = client.submit(["sh", "-c", "true"], env={}, gpus=1, gpu_ids=[0, 2], key="k", priority=1)
    data = client.session.job(job.id)
    seen = client.job(job.id)
    for name, value in data.items():
        found = getattr(seen, name)
        if isinstance(found, datetime):
            assert found == datetime.fromisoformat(value)
        elif isinstance(value, list) and name not in {"events", "attempts"}:
            assert list(found) == value
        elif not isinstance(value, dict | list):
            assert found == value


def test_the_classes_have_a_field_for_every_one_of_a_submission() -> None:
    asked = set(JobSpec.model_fields)
    assert set(Submission.__annotations__) == asked
    assert set(Options.__annotations__) == asked - {"command", "array", "sweep"}
    assert set(Changes.__annotations__) == set(CHANGEABLE)
    assert set(DEFAULTS) == asked - {"command"}


def test_a_field_that_is_not_sent_is_taken_as_the_signature_says() -> None:
    spec = JobSpec(command=["true"])
    for name, value in DEFAULTS.items():
        if name not in {"env", "priority", "secrets", "limits"}:
            server = getattr(spec, name)
            assert (tuple(server) if isinstance(server, list) else server) == value, name
    assert spec.priority.label == DEFAULTS["priority"]


def test_every_option_reaches_the_server(client: Client) -> None:
    first = client.submit(["true"], env={}, gpus=0)
    begin = datetime.now(UTC) + timedelta(hours=1)
    job = client.submit(
        ["true"], name="n", cwd="/tmp", env={"A": "b"}, gpus=2, gpu_mem_mb=100, gpu_ids=[1, 2], priority="high",
        group="g", time_limit_s=60, max_retries=1, after=[first], after_any=[first.id], begin=begin, hold=True,
        key="k", preemptible=True, signal="USR1@60", kill_grace_s=5,
    )  # fmt: skip
    seen = (job.name, job.cwd, job.gpus, job.gpu_mem_mb, job.gpu_ids, job.priority, job.group, job.time_limit_s)
    assert seen == ("n", "/tmp", 2, 100, (1, 2), "high", "g", 60)
    assert (job.max_retries, job.after, job.after_any, job.key) == (1, (first.id,), (first.id,), "k")
    assert (job.preemptible, job.state) == (True, "held")
    delayed = client.submit(["true"], env={}, begin=begin)
    assert delayed.eligible_at is not None
    assert abs(delayed.eligible_at - begin) < timedelta(milliseconds=1)


def test_an_array_answers_a_list(client: Client) -> None:
    jobs = client.submit(["true"], env={}, array="0-2")
    assert [job.array_index for job in jobs] == [0, 1, 2]
    many = client.submit_many([{"command": ["true"]}, {"command": ["true"], "priority": "low"}])
    assert [job.priority for job in many] == ["normal", "low"]


def test_changes_answer_the_job_as_it_is_then(client: Client) -> None:
    job = client.submit(["true"], env={})
    assert client.hold(job.id).state == "held"
    assert client.release(job.id).state == "queued"
    assert client.top(job.id).position == 1
    assert client.update(job.id, priority="high", time_limit_s=60).priority == "high"
    assert client.update(job.id, time_add_s=30).time_limit_s == 90
    assert client.update(job.id, time_limit_s=None).time_limit_s is None
    assert job.cancel(reason="no need").state == "cancelled"
    assert job.refresh().is_final
    assert job.wait(timeout_s=10).state == "cancelled"
    assert client.retry(job.id).state == "queued"
    assert [found.id for found in client.jobs(state=["queued", "held"], ids=[job.id])] == [job.id]


def test_history_is_cut_by_time(client: Client) -> None:
    job = client.submit(["true"], env={})
    before = datetime.now(UTC) - timedelta(hours=1)
    client.cancel(job.id)
    assert [ended.id for ended in client.history(state="cancelled", since=before)] == [job.id]
    assert client.history(until=before.timestamp()) == []


def test_output_is_text_and_its_end_can_be_asked_for(client: Client, start: Callable[..., Any]) -> None:
    job = client.submit(["true"], env={})
    run = start(job.id)
    run.log.write_bytes(b"first\n" * 400_000 + "zuletzt: größer\n".encode() + b"\xff\n")
    assert job.logs(last_bytes=20).splitlines() == ["zuletzt: größer", "�"]
    assert job.logs(last_bytes=0) == ""
    assert len(job.logs()) == 6 * 400_000 + 16 + 2


def test_waiting_ends_with_a_timeout(client: Client) -> None:
    job = client.submit(["true"], env={})
    with pytest.raises(TimeoutError):
        job.wait(timeout_s=0)


def test_errors_are_those_of_the_public_tree(client: Client) -> None:
    with pytest.raises(NotFound):
        client.job(999)
    job = client.submit(["true"], env={})
    with pytest.raises(WrongState):
        client.release(job.id)
    with pytest.raises(UsageError, match="a list of words"):
        client.submit("python train.py", env={})
    with pytest.raises(UsageError, match="a list of words"):
        client.submit_many([{"command": "python train.py"}])
