"""The monitor's screen, driven by keys without a terminal, over a client whose answers the test gives."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gpuq.cli.__main__ import main
from gpuq.errors import DaemonUnreachable, Forbidden, UsageError

pytest.importorskip("textual", reason="the monitor needs the extra `tui`")

from textual.pilot import Pilot

from gpuq.cli.commands.monitor import feed, verbs
from gpuq.cli.commands.monitor.app import Monitor
from gpuq.cli.commands.monitor.background import Listener
from gpuq.cli.commands.monitor.detail import Detail
from gpuq.cli.commands.monitor.job_table import JobTable
from gpuq.cli.commands.monitor.rows import gpu_lines
from gpuq.cli.commands.monitor.tail import CHUNK, MAX_LINE, MAX_LINES, Tail
from gpuq.cli.commands.monitor.widgets import Dialog

HOSTILE = "[bold red]x[/] \x1b]0;owned\x07‮gpj\n[link=file:///]y"


def a_job(number: int, state: str = "queued", **more: Any) -> dict[str, Any]:
    waits = state not in {"running", "completed", "failed", "cancelled"}
    reason = {"code": "Resources", "text": f"needs 2 GPUs, reason of {number}"} if waits else None
    return {
        "id": number, "name": f"job-{number}", "user": "alice", "group": None, "state": state, "reason": reason,
        "outcome": None, "command": ["python", "train.py"], "cwd": "/home/alice", "priority": "normal", "gpus": 2,
        "gpu_mem_mb": None, "time_limit_s": None, "attempt": 0, "array_id": None, "array_index": None,
        "submitted_at": "2026-11-22T10:00:00.000Z", "started_at": None if waits else "2026-11-22T11:00:00.000Z",
        "finished_at": "2026-11-22T12:00:00.000Z" if state in {"completed", "failed", "cancelled"} else None,
        "position": number if waits else None, "estimated_start": None, "estimated_end": None, "progress": None,
        "node": "box", "gpu_indices": [] if waits else [0, 1], "exit_code": None, "signal": None, "error": None,
        "attempts": [], "events": [],
        **more,
    }  # fmt: skip


def a_gpu(index: int, state: str = "free", **more: Any) -> dict[str, Any]:
    return {
        "index": index, "uuid": f"GPU-{index}", "model": "H200", "memory_mb": 24576, "used_mb": 12288,
        "utilisation": 0.97, "jobs": [], "processes": [], "state": state, "reason": None, **more,
    }  # fmt: skip


class Chunk:
    def __init__(self, data: bytes, offset: int, size: int, *, attempt: int = 1, final: bool = False) -> None:
        self.data, self.next_offset, self.size, self.attempt, self.final = data, offset, size, attempt, final


class Events:
    """A stream that tells when the test says so."""

    def __init__(self) -> None:
        self.told = threading.Semaphore(0)
        self.ended = False

    def frames(self, seconds: float) -> list[tuple[str, Any]]:
        if not self.told.acquire(timeout=seconds):
            return []
        if self.ended:
            raise EOFError
        return [("job", {})]

    def close(self) -> None:
        self.ended = True


class Daemon:
    """Answers as the client does, and keeps what it was asked for."""

    def __init__(self, *jobs: dict[str, Any]) -> None:
        self.all = list(jobs)
        self.cards = [a_gpu(0), a_gpu(1)]
        self.ended: list[dict[str, Any]] = []
        self.letters: list[dict[str, Any]] = []
        self.output = b""
        self.paused: dict[str, Any] | None = None
        self.away = False
        self.refuses: dict[str, Any] | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.events = Events()

    def _here(self) -> None:
        if self.away:
            raise DaemonUnreachable("no daemon answers on /x/gpuq.sock", hint="start it")

    def queue(self, *, limit: int | None = None, offset: int = 0, **filters: Any) -> dict[str, Any]:
        self._here()
        self.asked.append(("queue", limit, offset, filters))
        jobs = [job for job in self.all if all(job[name] == value for name, value in filters.items())]
        counts = {"running": 1, "waiting": len(self.all), "queued": 0, "paused": self.paused, "total": len(jobs)}
        return {**counts, "jobs": jobs[offset : None if limit is None else offset + limit]}

    def history(self, *, limit: int, after_id: int | None = None, **filters: Any) -> list[Any]:
        self._here()
        self.asked.append(("history", limit, after_id, filters))
        start = next((place + 1 for place, job in enumerate(self.ended) if job["id"] == after_id), 0)
        return self.ended[start : start + limit]

    def dlq(self) -> list[Any]:
        self._here()
        return self.letters

    def gpus(self) -> list[Any]:
        self._here()
        return self.cards

    def job(self, job_id: int) -> dict[str, Any]:
        self._here()
        return next(job for job in (*self.all, *self.ended) if job["id"] == job_id)

    def why(self, job_id: int) -> dict[str, Any]:
        job = self.job(job_id)
        return {**job, "reasons": [job["reason"]] if job["reason"] else []}

    def log(self, job_id: int, *, offset: int, limit: int) -> Chunk:
        self._here()
        start = max(0, len(self.output) + offset) if offset < 0 else offset
        data = self.output[start : start + limit]
        return Chunk(data, start + len(data), len(self.output))

    def act(self, verb: str, ids: tuple[int, ...], **words: Any) -> list[Any]:
        self._here()
        self.asked.append((verb, tuple(ids), words))
        return [{"id": one, **({"error": self.refuses} if self.refuses else {"state": "held"})} for one in ids]

    def pause(self) -> None:
        self.asked.append(("pause",))
        if self.refuses:
            raise Forbidden(self.refuses["message"])
        self.paused = {"by": "root", "reason": None}

    def resume(self) -> None:
        self.asked.append(("resume",))
        self.paused = None

    def listen(self, path: str) -> Events | None:
        return None if self.away else self.events

    def changes(self) -> list[tuple[Any, ...]]:
        return [one for one in self.asked if one[0] not in {"queue", "history"}]


Story = Callable[[Monitor, Pilot[None]], Awaitable[None]]


def play(daemon: Any, story: Story, *, size: tuple[int, int] = (80, 24), readonly: bool = False) -> None:
    async def run() -> None:
        app = Monitor(daemon, "alice", readonly=readonly)
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: app.seen is not None)
            await story(app, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        await pilot.pause(0.01)
        if condition():
            return
    pytest.fail(f"it never came to that:\n{screen(pilot.app)}")


def screen(app: Any) -> str:
    """What is drawn, as plain lines."""
    return "\n".join(
        "".join(segment.text for segment in strip).rstrip() for strip in app.screen._compositor.render_strips()
    )


def links(app: Any) -> list[str]:
    return [
        segment.style.link
        for strip in app.screen._compositor.render_strips()
        for segment in strip
        if segment.style is not None and segment.style.link
    ]


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_everything_has_its_place(size: tuple[int, int]) -> None:
    daemon = Daemon(a_job(1, "running"), *(a_job(number) for number in range(2, 9)))
    daemon.cards = [
        a_gpu(0, "leased", jobs=[{"id": 1, "name": "job-1", "user": "alice", "gpu_mem_mb": None}]),
        a_gpu(1, "external", processes=[{"pid": 77, "user": "bob", "command": "python game.py", "mem_mb": 1}]),
        a_gpu(2, "drained", reason={"code": "Drained", "text": "drained by root: fan"}),
        *(a_gpu(index) for index in range(3, 8)),
    ]

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await until(pilot, lambda: "job 1 job-1 is running" in screen(app))
        seen = screen(app)
        for text in ("1 running, 8 waiting", "leased", " 97%", "external", "foreign: bob", "drained", " 7 free"):
            assert text in seen, seen
        for text in ("1 mine", "2 all", "3 history", "4 dead", "job-1", "POS", "WHY", "needs 2 GPUs", "q quit"):
            assert text in seen, seen
        assert max(map(len, seen.splitlines())) <= size[0]
        assert app.query_one(JobTable).size.height >= 5
        assert app.query_one(Detail).size.height >= 5

    play(daemon, story, size=size)


def test_more_gpus_than_there_is_room_for_are_counted() -> None:
    lines = gpu_lines([a_gpu(index) for index in range(64)], 80, 4)
    assert len(lines) == 4
    assert "58 more GPUs" in lines[-1][0][0]


def test_a_key_makes_the_request_of_the_command() -> None:
    keys = [
        ("h", a_job(1), ("hold", (1,), {})),
        ("r", a_job(2, "held"), ("release", (2,), {})),
        ("r", a_job(3, "failed"), ("retry", (3,), {})),
        ("t", a_job(4), ("top", (4,), {})),
        ("plus", a_job(5), ("update", (5,), {"changes": {"priority": "high"}})),
        ("minus", a_job(6), ("update", (6,), {"changes": {"priority": "low"}})),
    ]
    daemon = Daemon(*(job for _, job, _ in keys))

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        for number, (key, _, wanted) in enumerate(keys, start=1):
            await pilot.press(key)
            await until(pilot, lambda number=number: len(daemon.changes()) == number)  # type: ignore[misc]
            assert daemon.changes()[-1] == wanted
            assert app.last_line.startswith(f"gpuq {wanted[0]} ")
            await pilot.press("down")

    play(daemon, story)


def test_what_cannot_be_undone_asks_with_the_jobs_name() -> None:
    daemon = Daemon(a_job(2, name="bert"), a_job(3))

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        for key, answer in (("C", "n"), ("K", "enter"), ("C", "escape")):
            await pilot.press(key)
            assert isinstance(app.screen, Dialog)
            assert "job 2 “bert” of alice?" in app.screen.text
            await pilot.press(answer)
            await until(pilot, lambda: not isinstance(app.screen, Dialog))
        await pilot.press("c", "k", "y", "escape")
        assert daemon.changes() == []
        await pilot.press("C", "y")
        await until(pilot, lambda: daemon.changes() == [("cancel", (2,), {})])
        await pilot.press("K", "y")
        await until(pilot, lambda: daemon.changes()[1:] == [("cancel", (2,), {"force": True})])

    play(daemon, story)


def test_a_verb_is_done_to_all_marked_jobs_in_one_request() -> None:
    daemon = Daemon(*(a_job(number) for number in range(1, 5)))

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("space", "space", "down", "space")
        await until(pilot, lambda: "3 marked" in screen(app))
        assert screen(app).count("●") == 3
        await pilot.press("y")
        assert isinstance(app.screen, Dialog)
        assert "gpuq cancel 1 2 4" in app.screen.text
        await pilot.press("escape", "h")
        await until(pilot, lambda: daemon.changes() == [("hold", (1, 2, 4), {})])
        await until(pilot, lambda: not app.marked)
        await pilot.press("y")
        assert "gpuq hold 1 2 4" in app.screen.text

    play(daemon, story)


def test_a_refusal_is_told_in_the_daemons_words() -> None:
    daemon = Daemon(a_job(1))
    daemon.refuses = {"code": "forbidden", "message": "job 1 is [b]bob's[/b]", "hint": None}

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("h")
        await until(pilot, lambda: "job 1 is [b]bob's[/b]" in screen(app))
        await pilot.press("P", "y")
        await until(pilot, lambda: ("pause",) in daemon.asked)
        assert daemon.paused is None

    play(daemon, story)


def test_the_queue_is_paused_and_let_go_on_after_a_question() -> None:
    daemon = Daemon(a_job(1))

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("P", "y")
        await until(pilot, lambda: "PAUSED by root" in screen(app))
        await pilot.press("P", "n", "P", "y")
        await until(pilot, lambda: "PAUSED" not in screen(app))
        assert daemon.changes() == [("pause",), ("resume",)]

    play(daemon, story)


def test_readonly_offers_no_action() -> None:
    daemon = Daemon(a_job(1), a_job(2, "held"))

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        assert "read only" in screen(app)
        await pilot.press("space", "h", "r", "t", "plus", "minus", "C", "y", "K", "y", "P", "y")
        await pilot.pause()
        assert daemon.changes() == []
        assert app.marked == {}
        await pilot.press("escape", "question_mark")
        assert isinstance(app.screen, Dialog)
        assert "cancel" not in app.screen.text
        assert "C cancel" not in screen(app)

    play(daemon, story, readonly=True)


def test_names_and_output_of_strangers_are_shown_as_what_they_are() -> None:
    daemon = Daemon(a_job(1, name=HOSTILE, command=["echo", HOSTILE], reason={"code": "Held", "text": HOSTILE}))
    daemon.cards = [a_gpu(0, "leased", jobs=[{"id": 1, "name": HOSTILE, "user": "eve", "gpu_mem_mb": None}])]
    daemon.output = b"[red]log[/red] \x1b[31mcolour\x1b[0m \x1b]52;c;AAAA\x07end \xe2\x80\xae \x07\xff\nnext\n"

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        for key, text in (("w", "job 1 [bold red]"), ("l", "[red]log[/red] colour end ⟨U+202E⟩ ␇�")):
            await pilot.press(key)
            await until(pilot, lambda text=text: text in screen(app))  # type: ignore[misc]
            seen = screen(app)
            assert "[bold red]x[/] ␛]0;owned␇⟨U+202E⟩gpj" in seen
            assert not set(seen) & {"\x1b", "\x07", "‮", "\x9b"}
        assert links(app) == []
        await pilot.press("C")
        assert "[bold red]x[/] ␛" in screen(app)
        await pilot.press("n")

    play(daemon, story, size=(160, 40))


def test_a_daemon_that_goes_away_is_waited_for() -> None:
    daemon = Daemon(a_job(1))

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        daemon.away = True
        app.look()
        await until(pilot, lambda: "the daemon is away, trying again" in screen(app))
        assert "job-1" in screen(app)
        daemon.all.append(a_job(2))
        await pilot.press("h")
        await until(pilot, lambda: "no daemon answers" in screen(app))
        daemon.away = False
        app.tick()
        app.tick()
        await until(pilot, lambda: "job-2" in screen(app) and "is away, trying" not in screen(app))
        assert daemon.changes() == []

    play(daemon, story)


def test_an_event_wakes_a_look_and_the_cursor_stays_with_its_job() -> None:
    daemon = Daemon(a_job(1), a_job(2), a_job(3))

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down")
        assert app.query_one(JobTable).chosen == 3
        daemon.all = [a_job(9), a_job(3), a_job(1)]
        daemon.events.told.release()
        await until(pilot, lambda: "job-9" in screen(app))
        assert app.query_one(JobTable).chosen == 3

    play(daemon, story)


def test_many_events_are_told_as_one() -> None:
    events = Events()
    told: list[bool] = []
    listener = Listener(lambda: events, lambda: told.append(True))  # type: ignore[arg-type, return-value]
    hears = threading.Event()
    rests: list[float] = []

    class Closing:
        def is_set(self) -> bool:
            return len(rests) >= 3

        def wait(self, seconds: float) -> None:
            rests.append(seconds)
            for _ in range(50):
                events.told.release()

        def set(self) -> None:
            hears.set()

    listener._closing = Closing()  # type: ignore[assignment]
    listener._run()
    assert len(told) == len(rests) == 3
    assert set(rests) == {1.0}


def test_without_a_stream_a_change_is_looked_for_all_the_same() -> None:
    told: list[bool] = []
    listener = Listener(lambda: None, lambda: told.append(True))

    class Closing:
        def is_set(self) -> bool:
            return len(told) >= 2

        def wait(self, seconds: float) -> None:
            assert seconds >= 1.0

    listener._closing = Closing()  # type: ignore[assignment]
    listener._run()
    assert len(told) == 2


def test_a_long_line_is_asked_for_by_the_page() -> None:
    class LongLine(Daemon):
        def queue(self, *, limit: int | None = None, offset: int = 0, **filters: Any) -> dict[str, Any]:
            self.asked.append(("queue", limit))
            assert limit is not None
            jobs = [a_job(number) for number in range(offset + 1, min(offset + limit, 100_000) + 1)]
            return {"running": 0, "waiting": 100_000, "queued": 0, "paused": None, "total": 100_000, "jobs": jobs}

    daemon = LongLine()

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "page 1 of 1,000" in screen(app))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "page 2 of 1,000" in screen(app))
        assert app.query_one(JobTable).chosen == 101
        await pilot.press("left_square_bracket", "left_square_bracket")
        await until(pilot, lambda: app.query_one(JobTable).chosen == 1)
        assert {one[1] for one in daemon.asked} == {feed.PAGE}

    play(daemon, story)


def test_tabs_and_filters_choose_what_is_asked_for() -> None:
    daemon = Daemon(a_job(1), a_job(2, user="bob", name="bert"))
    daemon.ended = [a_job(number, "failed", outcome="exit_nonzero", exit_code=3) for number in range(500, 300, -1)]
    daemon.letters = [
        {"job_id": 7, "name": "dead-one", "user": "bob", "failed_at": "2026-11-22T12:00:00.000Z", "attempts": 3,
         "outcome": "exit_nonzero", "error": "exit 3", "log_tail": "x"},
    ]  # fmt: skip

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        assert "bert" not in screen(app)
        await pilot.press("2")
        await until(pilot, lambda: "bert" in screen(app))
        await pilot.press("slash", *"name=bert", "enter")
        await until(pilot, lambda: "job-1" not in screen(app))
        assert daemon.asked[-1] == ("queue", 100, 0, {"name": "bert"})
        await pilot.press("slash", *"=x", "enter")
        await until(pilot, lambda: "no filter" in screen(app))
        await pilot.press("escape", "slash", *["backspace"] * 9, "enter", "3")
        await until(pilot, lambda: "job-500" in screen(app) and "exit 3" in screen(app))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "job-400" in screen(app))
        assert ("history", 100, 401, {}) in daemon.asked
        await pilot.press("4")
        await until(pilot, lambda: "dead-one" in screen(app))
        await pilot.press("r")
        await until(pilot, lambda: daemon.changes() == [("retry", (7,), {})])

    play(daemon, story)


def test_output_is_followed_within_bounds() -> None:
    daemon = Daemon(a_job(1, "running"))
    daemon.output = b"first\n" + b"x" * 9000 + b"\nbar 1%\rbar 2%"

    async def story(app: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("l")
        await until(pilot, lambda: "bar 2%" in screen(app) and "bar 1%" not in screen(app))
        daemon.output += b"\rbar 3%\nlast\n"
        app.query_one(Detail).grow()
        await until(pilot, lambda: "last" in screen(app) and "bar 3%" in screen(app))
        daemon.away = True
        app.query_one(Detail).grow()
        await until(pilot, lambda: "no daemon answers" in screen(app))
        daemon.away = False
        app.query_one(Detail).grow()
        await until(pilot, lambda: "bar 3%" in screen(app))

    play(daemon, story)


def test_the_end_of_much_output_is_enough() -> None:
    daemon: Any = Daemon()
    tail = Tail(1)
    tail.read(daemon)
    daemon.output = b"".join(b"line %d\n" % number for number in range(200_000)) + b"y" * 10 * MAX_LINE
    for _ in range(5):
        tail.read(daemon)
    lines = tail.lines()
    assert len(lines) <= MAX_LINES + 1
    assert max(map(len, lines)) <= MAX_LINE + 2
    assert lines[-1].endswith("yyy")
    assert tail._offset == len(daemon.output)
    assert len(daemon.output) > 20 * CHUNK


def test_a_later_attempt_begins_its_output_anew() -> None:
    chunks = [Chunk(b"one\n", 4, 4), Chunk(b"", 4, 9, attempt=2), Chunk(b"two\n", 4, 4, attempt=2, final=True)]

    class Client:
        def log(self, job_id: int, *, offset: int, limit: int) -> Chunk:
            return chunks.pop(0)

    client: Any = Client()
    tail = Tail(1)
    tail.read(client)
    assert tail.lines() == ["one"]
    tail.read(client)
    assert (tail.lines(), tail.final, chunks) == (["two"], True, [])


def test_what_a_key_cannot_do_is_said() -> None:
    with pytest.raises(UsageError, match="no job"):
        verbs.steps("hold", [])
    with pytest.raises(UsageError, match="running"):
        verbs.steps("release", [a_job(1, "running")])
    with pytest.raises(UsageError, match="critical"):
        verbs.steps("raise", [a_job(1, priority="critical")])
    kept = verbs.steps("lower", [a_job(1), a_job(2, priority="high"), a_job(3)])
    assert [step.line for step in kept] == ["gpuq update --priority low 1 3", "gpuq update --priority normal 2"]


def test_without_a_terminal_it_says_what_to_use_instead(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor"]) == 2
    assert "`gpuq status`" in capsys.readouterr().err


def test_without_textual_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["monitor"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "gpuq: the monitor needs Textual, which is not installed",
        "hint: pip install 'gpu-job-queue[tui]' installs it",
    ]


def test_no_other_command_loads_textual() -> None:
    code = (
        "import sys, pkgutil, importlib, gpuq.cli.commands as all\n"
        "for one in pkgutil.iter_modules(all.__path__): importlib.import_module(f'gpuq.cli.commands.{one.name}')\n"
        "import gpuq.cli.commands.monitor.command\n"
        "assert 'gpuq.cli.commands.status' in sys.modules\n"
        "sys.exit('textual' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
