"""The pieces of the screen that Textual does not have: lines to look at, a question, lines of one's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static


class LineView(ScrollView, can_focus=True):
    """Plain lines, none of them read as markup. Whoever looks at the end stays at the end when lines come."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - the name that Textual gives it
        super().__init__(id=id)
        self.lines: list[str] = []
        self._told: list[str] = []
        self._wraps = False

    def show(self, lines: Sequence[str], *, wrap: bool, end: bool) -> None:
        """`wrap`: lines that are too long go on below; `end`: begin at the last line, and follow it."""
        if list(lines) == self._told and wrap == self._wraps:
            return
        follows = end and (self.is_vertical_scroll_end or not self._told)
        self._told, self._wraps = list(lines), wrap
        self._lay_out()
        if follows:
            self.scroll_end(animate=False, immediate=True)

    def begin(self) -> None:
        """Empty, for another job."""
        self._told = []
        self._lay_out()
        self.scroll_home(animate=False, immediate=True)

    def on_resize(self) -> None:
        """Wraps anew."""
        self._lay_out()

    def _lay_out(self) -> None:
        width = max(1, self.scrollable_content_region.width or self.size.width)
        self.lines = [
            piece.plain
            for line in self._told
            for piece in (Text(line).wrap(self.app.console, width) if self._wraps else [Text(line)])
        ]
        self.virtual_size = Size(max((Text(line).cell_len for line in self.lines), default=0), len(self.lines))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A line of the pane, cut to what is in view."""
        left, top = self.scroll_offset
        style = self.rich_style
        text = self.lines[top + y] if top + y < len(self.lines) else ""
        strip = Strip([Segment(text, style)])
        return strip.crop_extend(left, left + self.size.width, style)


class Dialog(ModalScreen[bool]):
    """Text before everything else. With `question` only `y` is a yes; without, any of the keys puts it away."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,N,escape,q,enter,question_mark", "answer(False)", show=False),
    ]

    def __init__(self, text: str, *, question: bool) -> None:
        super().__init__()
        self.text = text
        self._keys = "y: yes    n: no" if question else "escape: back"

    def compose(self) -> ComposeResult:
        """The text, and which keys answer."""
        with VerticalScroll():
            yield Static(Text(self.text))
            yield Static(Text(self._keys, style="bold"))

    def action_answer(self, yes: bool) -> None:
        """Ends the dialog."""
        self.dismiss(yes)


def joined(lines: Sequence[Sequence[tuple[str, str]]]) -> Text:
    """Lines of pieces (text, style) as one text."""
    whole = Text(no_wrap=True, overflow="crop")
    for number, line in enumerate(lines):
        if number:
            whole.append("\n")
        for text, style in line:
            whole.append(text, style=style or None)
    return whole
