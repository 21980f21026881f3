"""Functions as jobs of a live daemon: what `concurrent.futures` promises holds, also in another process."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpuq
from gpuq.python_values import RemoteTraceback

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def home(make_boxes: Callable[..., Any]) -> Iterator[Path]:
    box = make_boxes(GPUQ_GPUS="sim:4", GPUQ_KILL_GRACE="1", GPUQ_MAX_RESULT="1M")
    box.up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUQ_HOME", str(box.home))
        # Functions of this file travel as they are; what runs them need not find it.
        yield box.home


@pytest.fixture
def executor(home: Path) -> Iterator[gpuq.Executor]:
    with gpuq.Executor(gpus=0, time_limit="2m") as made:
        yield made


class Gate:
    """Functions stand before it until it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def stand(self) -> Callable[..., Any]:
        path = self.path

        def stand(value: Any = None) -> Any:
            while not os.path.exists(path):
                time.sleep(0.01)
            return value

        return stand

    def open(self) -> None:
        Path(self.path).touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def until_running(future: Any) -> None:
    runs = threading.Event()
    while not future.running():
        assert not future.done()
        runs.wait(0.02)


def test_results_come_in_the_order_of_the_calls_and_futures_as_they_end(executor: Any, gate: Gate) -> None:
    factor = 2
    assert list(executor.map(lambda x: factor * x, range(3), timeout=PATIENCE_S)) == [0, 2, 4]
    slow, quick = executor.submit(gate.stand(), "slow"), executor.submit(lambda: "quick")
    ended = concurrent.futures.as_completed([slow, quick], timeout=PATIENCE_S)
    assert next(ended).result() == "quick"
    with pytest.raises(TimeoutError):
        slow.result(timeout=0)
    assert not slow.done()
    gate.open()
    assert next(ended) is slow
    done, left = concurrent.futures.wait([slow, quick], timeout=0)
    assert (len(done), len(left)) == (2, 0)
    job = quick.job.refresh()
    assert (job.name, job.state, job.gpus, job.max_retries, job.time_limit_s) == ("lambda", "completed", 0, 0, 120)
    assert job.result() == "quick"


def test_what_a_function_raises_is_raised_here(executor: Any) -> None:
    def fail() -> None:
        print("about to fail")
        raise KeyError("what was asked for")

    future = executor.submit(fail)
    with pytest.raises(KeyError, match="what was asked for") as raised:
        future.result(timeout=PATIENCE_S)
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert "in fail" in str(raised.value.__cause__)
    assert raised.value.__notes__ == [f"in job {future.job.id}; `gpuq logs {future.job.id}` has its output"]
    assert future.log().startswith("about to fail\nTraceback")
    assert (future.job.state, future.job.exit_code) == ("failed", 1)


def test_what_leaves_no_result_is_an_error_by_its_outcome(executor: Any) -> None:
    exits = executor.submit(sys.exit, 3)
    late = executor.options(time_limit=0.5).submit(time.sleep, 60)
    large = executor.submit(lambda: bytes(2 << 20))
    strange = executor.submit(threading.Lock)
    failed = exits.exception(timeout=PATIENCE_S)
    assert isinstance(failed, gpuq.JobFailed)
    assert (failed.exit_code, failed.job_id, failed.outcome) == (3, exits.job.id, "exit_nonzero")
    assert isinstance(late.exception(timeout=PATIENCE_S), gpuq.TimeLimit)
    told = str(large.exception(timeout=PATIENCE_S))
    assert told.endswith("the result was not kept: 2 MiB is more than 1 MiB (GPUQ_MAX_RESULT)")
    assert large.job.state == "completed"
    assert "cannot travel" in str(strange.exception(timeout=PATIENCE_S))


def test_a_call_that_cannot_travel_is_refused_at_once_and_nothing_is_queued(executor: Any, home: Path) -> None:
    before = len(list((home / "calls").iterdir()))
    with gpuq.Client() as client:
        jobs = len(client.jobs())
        with pytest.raises(gpuq.UsageError, match="cannot travel between processes"):
            executor.submit(print, threading.Lock())
        with pytest.raises(gpuq.Constraint):
            executor.options(gpus=99).submit(print)
        assert len(client.jobs()) == jobs
    assert len(list((home / "calls").iterdir())) == before


def test_waiting_calls_are_cancelled_and_running_ones_only_killed(executor: Any, gate: Gate) -> None:
    running = executor.options(gpus=4).submit(gate.stand())
    until_running(running)
    waiting, by_others = (executor.options(gpus=4).submit(print) for _ in range(2))
    assert waiting.cancel()
    assert waiting.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result(timeout=0)
    assert concurrent.futures.wait([waiting], timeout=0).done == {waiting}
    assert waiting.job.refresh().state == "cancelled"
    by_others.job.cancel()
    assert isinstance(by_others.exception(timeout=PATIENCE_S), gpuq.JobCancelled)
    assert not running.cancel()
    assert not running.job.refresh().is_final
    running.kill(grace_s=1)
    assert isinstance(running.exception(timeout=PATIENCE_S), gpuq.JobCancelled)
    assert not running.cancel()


def test_after_a_shutdown_nothing_is_taken_and_what_waits_may_be_cancelled(home: Path, gate: Gate) -> None:
    executor = gpuq.Executor(gpus=4)
    running = executor.submit(gate.stand(), "done")
    until_running(running)
    waiting = executor.submit(print)
    executor.shutdown(wait=False, cancel_futures=True)
    assert (waiting.cancelled(), running.done()) == (True, False)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(print)
    gate.open()
    executor.shutdown()
    assert running.result(timeout=0) == "done"


def test_no_more_workers_are_in_the_queue_than_were_asked_for(home: Path, gate: Gate) -> None:
    with gpuq.Executor(gpus=0, max_workers=1) as executor:
        first = executor.submit(gate.stand(), 1)
        second, third = executor.submit(int, 2), executor.submit(print)
        assert (second.job, third.job, third.log(), third.progress()) == (None, None, "", None)
        assert third.cancel()
        gate.open()
        assert first.result(timeout=PATIENCE_S) == 1
        assert second.result(timeout=PATIENCE_S) == 2
        assert third.cancelled()


def test_the_future_is_had_again_in_another_process(executor: Any, gate: Gate) -> None:
    standing = gate.stand()

    def train() -> Any:
        gpuq.progress(0.5)
        return standing({"loss": 0.1})

    job = executor.submit(train).job
    program = f"import gpuq; print(gpuq.attach({job.id}).result(timeout={PATIENCE_S}))"
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    attached = gpuq.attach(job.id)
    gate.open()
    assert attached.result(timeout=PATIENCE_S) == {"loss": 0.1}
    assert other.communicate(timeout=PATIENCE_S)[0] == "{'loss': 0.1}\n"
    assert gpuq.attach(job.id).result(timeout=PATIENCE_S) == {"loss": 0.1}
    # It ran once and succeeded, so nobody needs the call any more.
    assert not os.path.exists(job.command[-1])


def test_nobody_asks_for_each_future_while_it_runs(home: Path, gate: Gate) -> None:
    with gpuq.Client() as client, gpuq.Executor(gpus=0, client=client) as executor:
        futures = [executor.submit(gate.stand(), number) for number in range(6)]
        for future in futures:
            until_running(future)
        asked: list[Any] = []
        jobs = client.jobs
        client.jobs = lambda **filters: asked.append(filters["ids"]) or jobs(**filters)  # type: ignore[method-assign]
        gate.open()
        assert sorted(future.result(timeout=PATIENCE_S) for future in futures) == list(range(6))
    # Each start and each end is news, and nothing else is asked for.
    assert len(futures) <= sum(map(len, asked)) <= 3 * len(futures)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"gpu": 2}, TypeError, "no option 'gpu'"),
        ({"gpus": "2"}, gpuq.UsageError, "gpus: a whole number"),
        ({"time_limit": "soon"}, gpuq.UsageError, "soon"),
        ({"max_workers": 0}, gpuq.UsageError, "max_workers: at least 1"),
    ],
)
def test_what_is_no_option_is_refused_at_once(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        gpuq.Executor(**options)
