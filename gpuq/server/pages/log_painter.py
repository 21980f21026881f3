"""A job's output as HTML: colours as classes, and of a line that a progress bar wrote over what stands there last."""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise

from rich.ansi import AnsiDecoder
from rich.color import ColorSystem
from rich.style import Style
from rich.text import Text

from gpuq.domain.visible_text import shown

# Characters of a line that are shown; a line without an end is not kept whole.
MAX_LINE = 4000


# Titles, links and whatever else is said to a terminal rather than shown.
_SAID = re.compile(r"\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)")


class LogPainter:
    """Takes output as it comes and gives HTML; colours go on over line ends and pieces. One per reader."""

    def __init__(self) -> None:
        self._decoder = AnsiDecoder()
        self._rest = ""

    def paint(self, text: str) -> str:
        """The lines that are whole now, each ending in a line break. What is left is in `tail`."""
        lines = (self._rest + text).split("\n")
        self._rest = _short(lines.pop())
        return "".join(f"{self._line(line)}\n" for line in lines)

    def tail(self) -> str:
        """The last line as it stands, without an end yet; looking at it changes nothing."""
        style = self._decoder.style
        try:
            return self._line(self._rest)
        finally:
            self._decoder.style = style

    def _line(self, line: str) -> str:
        return _html(self._decoder.decode_line(_seen(_SAID.sub("", _short(line)))))


def _seen(line: str) -> str:
    """What a terminal shows of a line with carriage returns in it: the last piece with something in it."""
    pieces = [piece for piece in line.split("\r") if piece]
    return pieces[-1] if pieces else ""


def _short(line: str) -> str:
    """The line, or the end of one that is longer than anybody reads: there a progress bar stands."""
    return line if len(line) <= MAX_LINE else "… " + line[-MAX_LINE:]


def _html(text: Text) -> str:
    if not text.spans:
        return escape(shown(text.plain))
    pieces = []
    edges = sorted({0, len(text), *(span.start for span in text.spans), *(span.end for span in text.spans)})
    for start, end in pairwise(edges):
        here = [span.style for span in text.spans if span.start <= start and span.end >= end]
        style = Style.combine([Style.null(), *(one for one in here if isinstance(one, Style))])
        piece = escape(shown(text.plain[start:end]))
        names = _classes(style)
        pieces.append(f'<span class="{names}">{piece}</span>' if names else piece)
    return "".join(pieces)


def _classes(style: Style) -> str:
    """Of sixteen colours, whatever was asked for: the page allows no colours but its own."""
    names = []
    for kind, color in (("f", style.color), ("b", style.bgcolor)):
        if color is not None and not color.is_default:
            names.append(f"{kind}{color.downgrade(ColorSystem.STANDARD).number}")
    names += [name for name in ("bold", "italic", "underline", "dim") if getattr(style, name)]
    return " ".join(names)
