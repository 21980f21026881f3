"""The pane about one job: why it waits, its output as it comes, its events, its attempts."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from gpuq.cli.commands.monitor.background import Lanes
from gpuq.cli.commands.monitor.rows import attempt_lines, event_lines, why_lines
from gpuq.cli.commands.monitor.tail import Tail
from gpuq.cli.commands.monitor.widgets import LineView
from gpuq.client.calls import Calls
from gpuq.domain.visible_text import shown_on_a_line
from gpuq.errors import GpuqError

MODES = ("why", "log", "events", "attempts")
# Events and attempts that are shown; a job of many retries has thousands.
MOST = 500


class Detail(Vertical):
    """Asks in its own lane, and never twice at a time; an answer for a job that nobody looks at any more is dropped."""

    def __init__(self, client: Calls, lanes: Lanes) -> None:
        super().__init__(id="detail")
        self._client = client
        self._lanes = lanes
        self._asking = False
        self._again = False
        self._tail: Tail | None = None
        self.job_id = 0
        self.mode = MODES[0]

    def compose(self) -> ComposeResult:
        """The names of its sides, and the lines of one."""
        yield Static(id="modes")
        yield LineView(id="lines")

    def on_mount(self) -> None:
        """Shows the names of its sides."""
        self._draw_modes()

    def about(self, job_id: int, mode: str | None = None) -> None:
        """Turns to another job, or another side of it."""
        mode = mode or self.mode
        if (job_id, mode) == (self.job_id, self.mode):
            return
        self.job_id, self.mode = job_id, mode
        self._tail = Tail(job_id) if mode == "log" else None
        self._draw_modes()
        self.query_one(LineView).begin()
        self.look()

    def look(self) -> None:
        """Asks for what the pane shows, unless nobody sees it."""
        if not self.job_id or not self.display:
            return
        if self._asking:
            self._again = True
            return
        self._asking = True
        about = (self.job_id, self.mode)
        tail = self._tail
        self._lanes.ask("detail", lambda: self._ask(about, tail), lambda answer: self._answered(about, answer))

    def grow(self) -> None:
        """A second has passed: what is new in the output of a job that may write more."""
        if self._tail is not None and not self._tail.final and not self._asking:
            self.look()

    def _ask(self, about: tuple[int, str], tail: Tail | None) -> list[str]:
        """In the lane's thread."""
        job_id, mode = about
        if tail is not None:
            tail.read(self._client)
            return tail.lines() or ["no output yet"]
        job: Any = self._client.job(job_id)
        if mode == "why":
            return why_lines(job, self._client.why(job_id))
        return event_lines(job, MOST) if mode == "events" else attempt_lines(job, MOST)

    def _answered(self, about: tuple[int, str], answer: Any) -> None:
        self._asking = False
        again, self._again = self._again, False
        if about == (self.job_id, self.mode):
            self._draw(answer)
            if again:
                self.look()
        else:
            self.look()

    def _draw(self, answer: Any) -> None:
        view = self.query_one(LineView)
        if isinstance(answer, Exception):
            hint = answer.hint if isinstance(answer, GpuqError) else None
            answer = [shown_on_a_line(text) for text in (str(answer), hint) if text]
        view.show(answer, wrap=self.mode != "log", end=self.mode != "why")

    def _draw_modes(self) -> None:
        text = Text(f" {self.job_id or ''} ", style="bold", no_wrap=True)
        for mode in MODES:
            text.append(f" {mode} ", style="reverse" if mode == self.mode else "not bold")
        self.query_one("#modes", Static).update(text)
