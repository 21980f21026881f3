"""Tables, times and colours for people. Columns are laid out here, because importing rich takes 70 ms."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GREEN, YELLOW, RED, CYAN, DIM, BOLD = "32", "33", "31", "36", "2", "1"
# A moment that was told for the future may have passed by so much since it was told.
LATE_S = 600.0
STATE_COLOURS = {
    "running": GREEN, "starting": GREEN, "stopping": YELLOW, "queued": CYAN, "completed": GREEN, "failed": RED,
    "cancelled": DIM, "held": YELLOW, "free": GREEN, "leased": CYAN, "shared": CYAN, "external": YELLOW,
    "unhealthy": RED, "drained": YELLOW,
}  # fmt: skip


def coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and text and coloured() else text


def width() -> int | None:
    """Columns of the terminal; None when the output is not one, and nothing may be cut."""
    if not sys.stdout.isatty():
        return None
    try:
        return int(os.environ.get("COLUMNS", "")) or None
    except ValueError:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None


def height() -> int | None:
    """Lines of the terminal; None when the output is not one."""
    if not sys.stdout.isatty():
        return None
    try:
        return int(os.environ.get("LINES", "")) or None
    except ValueError:
        return os.get_terminal_size(sys.stdout.fileno()).lines or None


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    state: str = "STATE",
    limit: int | None = None,
) -> str:
    """Aligned columns, two blanks between, cut at `limit` columns, or at the terminal's right edge. Columns that are
    empty in every row are left out. `right`: headings of the columns that are aligned at the right; `state`: of the one
    that is coloured."""
    clean = [[printable(cell) for cell in row] for row in rows]
    used = [place for place in range(len(header)) if any(row[place] for row in clean)]
    widths = {place: max(len(header[place]), *(cells_of(row[place]) for row in clean)) for place in used}
    limit = width() if limit is None else limit
    lines = []
    for number, row in enumerate([list(header), *clean]):
        cells = [_padded(row[place], widths[place], at_right=header[place] in right) for place in used]
        line = cut("  ".join(cells).rstrip(), limit)
        if number == 0:
            line = paint(line, BOLD)
        elif state in header and (colour := STATE_COLOURS.get(row[header.index(state)])):
            line = _paint_cell(line, row[header.index(state)], colour)
        lines.append(line)
    return "\n".join(lines)


def wrapped(text: str, indent: int, limit: int | None) -> str:
    """`text` in lines of at most `limit` columns (None: as it is), from the second on after `indent` blanks; broken
    between words where that is possible."""
    lines = []
    while limit is not None and cells_of(text) > limit and limit > indent + 1:
        fits = len(cut(text, limit + 1)) - 1
        space = text.rfind(" ", indent + 1, fits + 1)
        place = space if space > indent else fits
        lines.append(text[:place].rstrip())
        text = " " * indent + text[place:].lstrip()
    return "\n".join([*lines, text])


def cells_of(text: str) -> int:
    """How many columns of a terminal the text takes: some characters take two, some none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, most: int | None) -> str:
    """At most `most` columns of a terminal (None: any number); an ellipsis for what is left out."""
    if most is None or cells_of(text) <= most:
        return text
    text = text[: max(0, most - 1)]
    while cells_of(text) > most - 1:
        text = text[:-1]
    return text + "…"


def _padded(text: str, wide: int, *, at_right: bool) -> str:
    blanks = " " * (wide - cells_of(text))
    return blanks + text if at_right else text + blanks


def printable(text: str) -> str:
    """Without what would steer the terminal: names, reasons and commands are other people's words."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def _paint_cell(line: str, cell: str, colour: str) -> str:
    before, found, after = line.partition(f"  {cell}")
    return f"{before}  {paint(cell, colour)}{after}" if found else line


def epoch(iso: str | None) -> float | None:
    return None if iso is None else datetime.fromisoformat(iso).timestamp()


def when(iso: str | None, *, now: float | None = None) -> str:
    """Local and as short as it is clear: `14:20` today, else `2026-11-22 14:20`."""
    at = epoch(iso)
    if at is None:
        return ""
    then, today = time.localtime(at), time.localtime(time.time() if now is None else now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%Y-%m-%d %H:%M", then)


def about(iso: str | None, span: Sequence[str | None] | None, *, now: float | None = None) -> str:
    """What is expected, and how far it may be off: `14:05 ±20m`. `span`: from when to when in most cases."""
    at = epoch(iso)
    if at is None or not span:
        return when(iso, now=now)
    off = max(abs(at - (epoch(end) or at)) for end in span)
    if off < 1:
        return when(iso, now=now)
    return f"{when(iso, now=now)} ±{_coarse(off)}"


def _coarse(seconds: float) -> str:
    """No more exact than a margin is worth: `1m`, `20m`, `1h30m`, `6h`, `3d`."""
    minutes = max(1, -(-int(seconds) // 60))
    if minutes > 48 * 60:
        return f"{-(-minutes // 1440)}d"
    if minutes > 10 * 60:
        return f"{-(-minutes // 60)}h"
    step = 30 if minutes > 60 else 5 if minutes > 10 else 1
    minutes = -(-minutes // step) * step
    hours, rest = divmod(minutes, 60)
    return f"{rest}m" if not hours else f"{hours}h{rest:02}m" if rest else f"{hours}h"


def full_time(iso: str | None) -> str:
    """A moment in local time, to the second; empty for None."""
    at = epoch(iso)
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def local_times(text: str, *, now: float | None = None) -> str:
    """The daemon's words with every moment in them as the reader's clock shows it, which the daemon does not know: it
    writes ISO 8601 with a Z, or `14:20 UTC` for what comes within a day."""
    if "Z" not in text and " UTC" not in text:
        return text
    import re

    at = time.time() if now is None else now

    def read(found: re.Match[str]) -> str:
        date, clock = found[1] or time.strftime("%Y-%m-%d ", time.gmtime(at)), found[2]
        moment = f"{date[:10]}T{clock}+00:00"
        try:
            begun = epoch(moment)
            # Of today's that have passed, tomorrow's is meant.
            if begun is not None and not found[1] and begun < at - LATE_S:
                moment = f"{time.strftime('%Y-%m-%d', time.gmtime(at + 86400))}T{clock}+00:00"
            return when(moment, now=at)
        except ValueError:
            return found[0]

    pattern = r"\b(\d{4}-\d\d-\d\d[T ])?(\d\d:\d\d(?::\d\d)?)(?:\.\d{1,6})?(?:Z| UTC)\b"
    return re.sub(pattern, read, text, flags=re.ASCII)


def span(seconds: float | None) -> str:
    """`42s`, `3m10s`, `2h05m`."""
    if seconds is None:
        return ""
    from gpuq.domain.quantities import duration_text

    return duration_text(seconds)


def since(iso: str | None, until: str | None = None) -> str:
    """How long from one time to the other, or to now."""
    start = epoch(iso)
    if start is None:
        return ""
    end = epoch(until)
    return span((time.time() if end is None else end) - start)


def memory(mb: float | None) -> str:
    """MB in a short form: `512M`, `1.5G`; empty for None."""
    if mb is None:
        return ""
    return f"{mb / 1024:.1f}G" if mb >= 1024 else f"{mb:.0f}M"


def count(number: int, noun: str) -> str:
    """`1 job`, `10,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def command_text(command: Sequence[str]) -> str:
    """The command as one would type it in a shell."""
    import shlex

    return shlex.join(command)
