"""The screen: GPUs above, the table of jobs, the pane about one of them, and the keys."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.events import Resize
from textual.widgets import Footer, Input, Static

from gpuq.cli.commands.monitor import feed, layout, rows
from gpuq.cli.commands.monitor.background import Listener
from gpuq.cli.commands.monitor.changing import Changing
from gpuq.cli.commands.monitor.detail import Detail
from gpuq.cli.commands.monitor.job_table import JobTable
from gpuq.cli.commands.monitor.widgets import Dialog, joined
from gpuq.client.calls import Calls
from gpuq.domain.visible_text import shown_on_a_line
from gpuq.errors import GpuqError, Unavailable, UsageError

# Seconds: between two readings of the GPUs, two looks while nothing is told, and two tries while the daemon is away.
GPUS_S = 5
STALE_S = 30
AWAY_S = 2
# From so many columns on, the pane about a job stands beside the table.
WIDE = 140


class Monitor(Changing):
    """`client` is asked from threads alone. `me`: whose jobs stand under *mine*; `readonly`: no key changes a thing."""

    CSS = layout.CSS
    ENABLE_COMMAND_PALETTE = False
    TITLE = "gpuq"
    BINDINGS: ClassVar[list[BindingType]] = layout.BINDINGS

    def __init__(self, client: Calls, me: str, *, readonly: bool = False) -> None:
        super().__init__(client, readonly=readonly)
        self.me = me
        self.view = feed.View()
        self._events = Listener(partial(client.listen, "/events"), partial(self.deliver, self._told, None))
        self._looking = self._look_again = self._away = False
        self._seconds = self._looked_at = 0

    def compose(self) -> ComposeResult:
        """Head, GPUs, tabs, a line for trouble, the table beside or above the pane, the filter, the keys."""
        yield Static(id="head")
        yield Static(id="gpus")
        yield Static(id="tabs")
        yield Static(id="note")
        with Container(id="middle"):
            yield JobTable()
            yield Detail(self.client, self.lanes)
        yield Input(id="filter", placeholder="words, or name=… user=… state=… group=…", compact=True)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begins to look, and to listen."""
        self.query_one(JobTable).focus()
        self._draw_head()
        self.look()
        self._events.start()
        self.set_interval(1.0, self.tick)

    def on_unmount(self) -> None:
        """Ends the stream of events."""
        self._events.close()

    def on_resize(self, event: Resize) -> None:
        """Puts the pane beside the table where there is room."""
        self.query_one("#middle").set_class(event.size.width >= WIDE, "wide")
        self.call_after_refresh(self.draw)

    @property
    def failure(self) -> Exception | None:
        """What ended the screen although nobody expected it."""
        return self._exception

    def _fatal_error(self) -> None:
        """Textual would print the whole of every variable; `gpuq` has a line for what nobody expected."""
        if os.environ.get("GPUQ_DEBUG"):
            super()._fatal_error()
        else:
            self._close_messages_no_wait()

    # -- what comes ---------------------------------------------------------------------------------------------

    def _told(self, _: None) -> None:
        self.look()
        self.query_one(Detail).look()

    def tick(self) -> None:
        """A second has passed."""
        self._seconds += 1
        since = self._seconds - self._looked_at
        if since >= (AWAY_S if self._away else STALE_S):
            self.look()
        elif self._seconds % GPUS_S == 0 and not self._away:
            self.lanes.ask("gpus", self.client.gpus, self._gpus_read)
        self.query_one(Detail).grow()

    def look(self) -> None:
        """Asks for the page that is looked at; once more afterwards, if that is wished meanwhile."""
        if self._looking:
            self._look_again = True
            return
        self._looking, self._looked_at = True, self._seconds
        self.lanes.ask("look", partial(feed.look, self.client, self.view, self.me), self._looked)

    def _looked(self, answer: Any) -> None:
        self._looking = False
        again, self._look_again = self._look_again, False
        if isinstance(answer, feed.Seen):
            came_back, self._away = self._away, False
            self._note("")
            if answer.view == self.view:
                self.seen = answer
                self.draw()
            if came_back:
                self.query_one(Detail).look()
        else:
            self._trouble(answer)
            again = again and not self._away
        if again or (isinstance(answer, feed.Seen) and answer.view != self.view):
            self.look()

    def _trouble(self, error: Exception) -> None:
        self._away = isinstance(error, Unavailable)
        said = f"the daemon is away, trying again: {error}" if self._away else str(error)
        hint = error.hint if isinstance(error, GpuqError) and not self._away else None
        self._note(f"{said} ({hint})" if hint else said)

    def _gpus_read(self, answer: Any) -> None:
        if isinstance(answer, list) and self.seen is not None:
            self.seen = replace(self.seen, gpus=answer)
            self._draw_gpus()

    # -- drawing ------------------------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        note = self.query_one("#note", Static)
        note.display = bool(text)
        note.update(Text(shown_on_a_line(text), style="yellow", no_wrap=True, overflow="ellipsis"))

    def draw(self) -> None:
        """Shows the page that was seen; marked jobs on it are what they are now."""
        if self.seen is not None:
            self.marked.update({job["id"]: job for job in self.seen.jobs if job["id"] in self.marked})
        self._draw_head()
        if self.seen is not None:
            self._draw_gpus()
            self.query_one(JobTable).show(self.seen.view.tab, self.seen.jobs, self.marked)
            self._turn()

    def _draw_head(self) -> None:
        said = rows.head(self.seen.counts, readonly=self.readonly) if self.seen is not None else "asking the daemon …"
        self.query_one("#head", Static).update(Text(f"gpuq · {said}", no_wrap=True, overflow="ellipsis"))
        text = Text(no_wrap=True, overflow="ellipsis")
        for number, tab in enumerate(feed.TABS):
            text.append(f" {number + 1} {tab} ", style="reverse" if tab == self.view.tab else "")
        text.append("  " + self._where())
        self.query_one("#tabs", Static).update(text)

    def _where(self) -> str:
        parts = [f"/{shown_on_a_line(self.view.filter)}"] if self.view.filter else []
        seen = self.seen
        if seen is not None and seen.view == self.view:
            if seen.more or self.view.page > 1:
                of = "" if seen.total is None else f" of {-(-seen.total // feed.PAGE):,}"
                parts.append(f"page {self.view.page:,}{of}, [ ] turn")
            if seen.total is not None:
                parts.append(f"{seen.total:,} jobs")
        if self.marked:
            parts.append(f"{len(self.marked)} marked")
        return " · ".join(parts)

    def _draw_gpus(self) -> None:
        if self.seen is not None:
            most = max(2, self.size.height // 6)
            self.query_one("#gpus", Static).update(joined(rows.gpu_lines(self.seen.gpus, self.size.width, most)))

    # -- the job under the cursor -------------------------------------------------------------------------------

    def _turn(self, mode: str | None = None) -> None:
        detail = self.query_one(Detail)
        if detail.display and (job_id := self.query_one(JobTable).chosen):
            detail.about(job_id, mode)

    def on_data_table_row_highlighted(self) -> None:
        """The cursor is on another job: the pane follows."""
        self._turn()

    def on_data_table_row_selected(self) -> None:
        """Enter: opens the pane."""
        self.action_side(self.query_one(Detail).mode)

    # -- keys ---------------------------------------------------------------------------------------------------

    def action_side(self, mode: str) -> None:
        """Opens the pane on one side of the job."""
        detail = self.query_one(Detail)
        detail.add_class("open")
        self.call_after_refresh(self._turn, mode)
        self.call_after_refresh(detail.look)

    def action_put_away(self) -> None:
        """Puts away the filter's line, else the pane, else the marks."""
        line, detail = self.query_one("#filter", Input), self.query_one(Detail)
        if line.display:
            line.display = False
            self.query_one(JobTable).focus()
        elif detail.has_class("open"):
            detail.remove_class("open")
            self.query_one(JobTable).focus()
        else:
            self.unmark()

    def action_tab(self, tab: str) -> None:
        """Looks at another list."""
        self._look_at(self.view.on(tab))

    def action_page(self, by: int) -> None:
        """Turns the page."""
        if self.seen is not None and self.seen.view == self.view:
            self._look_at(self.view.next(self.seen) if by > 0 else self.view.previous())

    def _look_at(self, view: feed.View) -> None:
        if view == self.view:
            return
        self.view = view
        self.query_one(JobTable).move_cursor(row=0)
        self.unmark()
        self.look()

    def action_filter(self) -> None:
        """Opens the line for a filter."""
        line = self.query_one("#filter", Input)
        line.value = self.view.filter
        line.display = True
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Takes the filter, or says what is wrong with it."""
        try:
            view = self.view.filtered(event.value)
        except UsageError as error:
            self.say(error)
            return
        self.action_put_away()
        self._look_at(view)

    def action_help(self) -> None:
        """Shows all keys."""
        self.push_screen(Dialog(layout.HELP if self.readonly else layout.HELP + layout.HELP_VERBS, question=False))
