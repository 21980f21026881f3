"""The keys that change something, on the jobs that are marked or the one under the cursor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from textual.app import App
from textual.message import Message

from gpuq.cli.commands.monitor import verbs
from gpuq.cli.commands.monitor.background import Lanes, Then
from gpuq.cli.commands.monitor.feed import Seen
from gpuq.cli.commands.monitor.job_table import JobTable
from gpuq.cli.commands.monitor.widgets import Dialog
from gpuq.client.calls import Calls
from gpuq.domain.visible_text import shown_on_a_line
from gpuq.errors import GpuqError, UsageError


class Answered(Message):
    """An answer from a lane, for whoever asked."""

    def __init__(self, then: Then, answer: Any) -> None:
        super().__init__()
        self.then = then
        self.answer = answer


class Changing(App[None]):
    """What of the screen asks the daemon for a change. `seen`: the page that is looked at; `marked`: jobs by id."""

    def __init__(self, client: Calls, *, readonly: bool) -> None:
        super().__init__()
        self.client = client
        self.readonly = readonly
        self.seen: Seen | None = None
        self.marked: dict[int, Any] = {}
        self.last_line = ""
        self.lanes = Lanes(self.deliver)

    def look(self) -> None:
        """Asks for the page that is looked at."""
        raise NotImplementedError

    def draw(self) -> None:
        """Shows what was seen."""
        raise NotImplementedError

    def deliver(self, then: Then, answer: Any) -> None:
        """From any thread."""
        try:
            self.post_message(Answered(then, answer))
        except RuntimeError:
            return  # The screen has ended meanwhile.

    def on_answered(self, message: Answered) -> None:
        """In the thread that draws; too late when the screen is being taken down."""
        if self.query("#table") and self.query("#detail"):
            message.then(message.answer)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key is offered: those that change something not with `--readonly`."""
        if self.readonly and action in {"change", "pause", "mark"}:
            return False
        return super().check_action(action, parameters)

    def _chosen(self) -> list[Any]:
        """The marked jobs, or the one under the cursor."""
        if self.marked:
            return list(self.marked.values())
        job_id = self.query_one(JobTable).chosen
        return [job for job in self.seen.jobs if job["id"] == job_id] if self.seen is not None else []

    def action_mark(self) -> None:
        """Marks the job under the cursor, or takes its mark away, and goes on to the next."""
        job_id = self.query_one(JobTable).chosen
        if self.seen is None or not job_id:
            return
        if self.marked.pop(job_id, None) is None:
            self.marked[job_id] = next(job for job in self.seen.jobs if job["id"] == job_id)
        self.query_one(JobTable).action_cursor_down()
        self.draw()

    def unmark(self) -> None:
        """Takes all marks away."""
        self.marked.clear()
        self.draw()

    def action_change(self, key: str) -> None:
        """Does what `key` means to the chosen jobs; what cannot be undone is asked about first."""
        jobs = self._chosen()
        try:
            wanted = verbs.steps(key, jobs)
        except UsageError as error:
            self.say(error)
            return
        if key in verbs.SURE:
            self._ask(verbs.question(key, jobs), partial(self._carry_out, wanted))
        else:
            self._carry_out(wanted)

    def _carry_out(self, wanted: list[verbs.Step]) -> None:
        self.last_line = "\n".join(step.line for step in wanted)
        self.lanes.ask("act", partial(verbs.carry_out, self.client, wanted), self._done)

    def action_pause(self) -> None:
        """Pauses the queue, or lets it go on; the daemon says whether the caller may."""
        if self.seen is None:
            return
        if self.seen.counts.get("paused"):
            self._ask("Let jobs start again?", partial(self._switch, "gpuq resume", self.client.resume))
        else:
            self._ask(
                "Pause the queue? What runs goes on, nothing new starts, for nobody.",
                partial(self._switch, "gpuq pause", self.client.pause),
            )

    def _switch(self, line: str, call: Callable[[], Any]) -> None:
        self.last_line = line
        self.lanes.ask("act", call, lambda answer: self._done(answer if isinstance(answer, Exception) else line))

    def _done(self, answer: Any) -> None:
        self.say(answer)
        if not isinstance(answer, Exception):
            self.unmark()
        self.look()

    def _ask(self, text: str, then: Callable[[], None]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                then()

        self.push_screen(Dialog(text, question=True), answered)

    def say(self, answer: Any) -> None:
        """Shows a line for a moment: what was done, or an error with what to do next."""
        wrong = isinstance(answer, Exception)
        hint = answer.hint if isinstance(answer, GpuqError) else None
        text = f"{answer} ({hint})" if hint else str(answer)
        self.notify(shown_on_a_line(text), severity="error" if wrong else "information", markup=False)

    def action_line(self) -> None:
        """Shows what does the same in a shell."""
        ids = [str(job["id"]) for job in self._chosen()]
        asking = ("show", "why", "logs -f") if len(ids) == 1 else ("status",)
        changing = () if self.readonly else ("hold", "release", "top", "retry", "cancel")
        lines = [f"gpuq {verb} {' '.join(ids)}" for verb in (*asking, *changing)] if ids else []
        if self.last_line:
            lines += ["", "done last:", self.last_line]
        self.push_screen(Dialog("\n".join(lines) or "gpuq status", question=False))
