"""What finished jobs leave behind: measured, kept as long as the settings say, and removed without harm."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.actions import dead_letters
from gpuq.engine.actions.retry import retry
from gpuq.engine.attempt import logs
from gpuq.engine.maintenance import clean as cleaning_task
from gpuq.engine.maintenance.clean import Cleaner
from gpuq.errors import NotFound
from gpuq.ports.job_files import Choice, What

DAY = 86400.0


class Box:
    """A world whose launched attempts have folders, as a real launcher makes them."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.agent = world.agent()
        self.cleaner = Cleaner(world.ctx, threading.Event())

    def folder(self, job_id: int) -> Path:
        return Path(self.world.settings.home, "jobs", str(job_id))

    def start(self, *, output: int = 5000, checkpoint: int = 0, **fields: Any) -> int:
        job_id: int = self.world.submit("x", max_retries=0, **fields)
        self.go_on(job_id, output=output, checkpoint=checkpoint)
        return job_id

    def go_on(self, job_id: int, *, output: int = 5000, checkpoint: int = 0) -> None:
        self.agent.wake()
        self.agent.run_once()
        self.world.launcher.run(job_id)
        self.agent.run_once()
        run_dir = Path(self.world.launcher.order_of(job_id).run_dir)
        for folder in (run_dir, run_dir.with_name(f"{run_dir.name}.records"), run_dir.with_name("checkpoint")):
            folder.mkdir(parents=True, exist_ok=True)
        (run_dir / "output.log").write_bytes(b"o" * output)
        run_dir.with_name(f"{run_dir.name}.records").joinpath("spec.json").write_text("{}")
        if checkpoint:
            run_dir.with_name("checkpoint").joinpath("last.pt").write_bytes(b"c" * checkpoint)

    def end(self, job_id: int, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        self.world.launcher.end(job_id, outcome, exit_code=0 if outcome is Outcome.SUCCEEDED else 1)
        self.agent.run_once()

    def ran(self, outcome: Outcome = Outcome.SUCCEEDED, **fields: Any) -> int:
        job_id = self.start(**fields)
        self.end(job_id, outcome)
        return job_id

    def log(self, job_id: int, attempt: int | None = None) -> bytes:
        return logs.read(self.world.ctx, job_id, attempt=attempt).data


@pytest.fixture
def make_box(make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Box]:
    monkeypatch.setattr(cleaning_task, "_PAUSE_S", 0.0)
    return lambda **settings: Box(make_world(**settings))


def test_output_is_removed_when_it_was_kept_long_enough_and_logs_say_when_and_why(
    make_box: Callable[..., Box],
) -> None:
    box = make_box()
    old = box.ran()
    box.world.clock.forward(80 * DAY)
    young = box.ran()
    box.cleaner.run()
    box.world.clock.forward(10 * DAY + 1)
    box.cleaner.run()
    assert not box.folder(old).exists()
    assert box.log(young) == b"o" * 5000
    with pytest.raises(NotFound, match=rf"job {old} was removed at 20\d\d-.*Z: kept for 90d \(GPUQ_KEEP_OUTPUT\)"):
        box.log(old)
    assert box.world.state(old) == "completed"


def test_nothing_is_removed_where_everything_is_kept_for_ever(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=0)
    job_id = box.ran(checkpoint=100)
    box.world.clock.forward(5000 * DAY)
    assert box.cleaner.run() is False
    assert box.log(job_id) == b"o" * 5000
    assert (box.folder(job_id) / "checkpoint" / "last.pt").exists()


def test_checkpoints_stay_when_output_goes_unless_they_have_a_time_of_their_own(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=DAY)
    job_id = box.ran(checkpoint=100)
    box.world.clock.forward(2 * DAY)
    box.cleaner.run()
    assert [path.name for path in box.folder(job_id).iterdir()] == ["checkpoint"]
    assert (box.folder(job_id) / "checkpoint" / "last.pt").exists()
    other = make_box(keep_output=0, keep_checkpoints=DAY)
    job_id = other.ran(checkpoint=100)
    other.world.clock.forward(2 * DAY)
    other.cleaner.run()
    assert sorted(path.name for path in other.folder(job_id).iterdir()) == ["1", "1.records"]


def test_a_job_that_runs_waits_or_is_held_keeps_all(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=DAY, keep_checkpoints=DAY)
    running = box.start(checkpoint=100)
    again = box.ran(Outcome.EXIT_NONZERO, checkpoint=100)
    dead_letters.retry(box.world.ctx, again, box.world.user)
    box.world.clock.forward(9 * DAY)
    box.cleaner.run()
    for job_id in (running, again):
        assert sorted(path.name for path in box.folder(job_id).iterdir()) == ["1", "1.records", "checkpoint"]


def test_a_dead_letter_keeps_its_output_until_it_is_none(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=DAY, keep_checkpoints=DAY)
    job_id = box.ran(Outcome.EXIT_NONZERO, checkpoint=100)
    box.world.clock.forward(2 * DAY)
    box.cleaner.run()
    assert box.log(job_id) == b"o" * 5000
    dead_letters.remove(box.world.ctx, job_id, box.world.user)
    box.cleaner.run()
    assert not box.folder(job_id).exists()


def test_a_folder_whose_lock_is_held_stays_and_keeps_no_other_from_being_removed(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=DAY)
    held, free = box.ran(), box.ran()
    box.world.launcher._alive.add(box.world.launcher.order_of(held).run_dir)
    box.world.clock.forward(2 * DAY)
    box.cleaner.run()
    assert (box.folder(held) / "1" / "output.log").exists()
    assert not box.folder(free).exists()
    box.world.launcher._alive.clear()
    assert box.cleaner.run() is False
    assert (box.folder(held) / "1" / "output.log").exists(), "tried again in a day, not in a minute"
    box.world.clock.forward(1 * DAY)
    box.cleaner.run()
    assert not box.folder(held).exists()


def test_an_attempt_that_starts_while_older_ones_are_removed_keeps_its_folder(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(keep_output=DAY, keep_checkpoints=DAY)
    job_id = box.ran(Outcome.EXIT_NONZERO, checkpoint=100)
    dead_letters.remove(box.world.ctx, job_id, box.world.user)
    box.world.clock.forward(2 * DAY)
    alive = box.world.launcher.alive

    def retried_meanwhile(run_dir: str) -> bool:
        monkeypatch.setattr(box.world.launcher, "alive", alive)
        retry(box.world.ctx, job_id, box.world.user)
        box.go_on(job_id, output=7)
        return False

    monkeypatch.setattr(box.world.launcher, "alive", retried_meanwhile)
    box.cleaner.run()
    assert box.world.state(job_id) == "running"
    assert sorted(path.name for path in box.folder(job_id).iterdir()) == ["2", "2.records", "checkpoint"]
    assert (box.folder(job_id) / "checkpoint" / "last.pt").exists()
    assert box.log(job_id) == b"o" * 7
    with pytest.raises(NotFound, match="was removed"):
        box.log(job_id, 1)


@pytest.mark.parametrize("call", ["note_removed", "note_measured"])
def test_a_removal_that_was_cut_off_before_it_was_noted_is_finished_later(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    box = make_box(keep_output=DAY, keep_checkpoints=DAY)
    job_id = box.ran(checkpoint=100)
    box.world.clock.forward(2 * DAY)
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        broken.setattr(box.world.ctx.files, call, fail)
        with pytest.raises(KeyboardInterrupt):
            box.cleaner.run()
    Cleaner(box.world.ctx, threading.Event()).run()
    assert not box.folder(job_id).exists()
    assert box.world.ctx.files.removed(job_id, What.OUTPUT) is not None
    assert box.world.ctx.files.removed(job_id, What.CHECKPOINTS) is not None


def test_checkpoints_are_all_there_or_none_even_when_a_removal_is_cut_off(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(keep_output=DAY, keep_checkpoints=DAY)
    job_id = box.ran(checkpoint=100)
    for number in range(100):
        (box.folder(job_id) / "checkpoint" / f"{number}.pt").touch()
    box.world.clock.forward(2 * DAY)
    monkeypatch.setattr(cleaning_task, "NAMES", 50)
    assert box.cleaner.run() is True
    assert not (box.folder(job_id) / "checkpoint").exists()
    assert 0 < len(list((box.folder(job_id) / "checkpoint.removed").iterdir())) < 100
    while box.cleaner.run():
        pass
    assert not box.folder(job_id).exists()


def test_a_run_removes_no_more_than_its_share_and_says_that_there_is_more(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning_task, "JOBS", 2)
    box = make_box(keep_output=DAY)
    done = [box.ran() for _ in range(3)]
    box.world.clock.forward(2 * DAY)
    assert box.cleaner.run() is True
    assert [box.folder(job_id).exists() for job_id in done] == [False, False, True]
    assert box.cleaner.run() is False
    assert not box.folder(done[2]).exists()


def test_a_daemon_that_stops_removes_nothing_more(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=DAY)
    job_id = box.ran()
    over = threading.Event()
    over.set()
    box.world.clock.forward(2 * DAY)
    assert Cleaner(box.world.ctx, over).run() is False
    assert box.folder(job_id).exists()


def test_a_clock_that_was_set_forward_removes_nothing(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=DAY)
    job_id = box.ran()
    box.world.clock.jump(1000 * DAY)
    box.cleaner.run()
    assert box.log(job_id) == b"o" * 5000


def test_history_goes_only_when_nothing_is_on_the_disk(make_box: Callable[..., Box]) -> None:
    box = make_box(keep_output=DAY, keep_history=2 * DAY)
    gone, with_checkpoints = box.ran(), box.ran(checkpoint=100)
    never_ran = box.world.submit("x", hold=True)
    box.world.clock.forward(1.5 * DAY)
    box.cleaner.run()
    assert box.world.state(gone) == "completed"
    box.world.clock.forward(1 * DAY)
    box.cleaner.run()
    with pytest.raises(NotFound):
        box.world.job(gone)
    assert box.world.state(with_checkpoints) == "completed"
    assert box.world.state(never_ran) == "held"


def test_each_finished_job_is_measured_once_after_each_end(
    make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box()
    first, second = box.ran(output=100_000, checkpoint=50_000), box.ran(output=10)
    box.start()
    box.cleaner.run()
    files = box.world.ctx.files
    sizes = {job.id: job.sizes for job in files.chosen(Choice(), after_id=0, limit=10)}
    assert set(sizes) == {first, second}
    taken = sum(
        os.lstat(path).st_blocks * 512 for path in (box.folder(first) / "1", box.folder(first) / "1/output.log")
    )
    assert sizes[first].output == taken >= 100_000
    assert sizes[first].checkpoints >= 50_000
    assert sizes[first].records > 0
    assert sizes[second].checkpoints is None
    seen: list[int] = []
    monkeypatch.setattr(cleaning_task, "sizes", lambda ctx, job, budget: seen.append(job.id))
    box.cleaner.run()
    assert seen == []
