"""The table of jobs: one page of a list, the marks, and the job under the cursor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from gpuq.cli.commands.monitor import rows

# Columns of the screen for the marks and the scrollbar.
ASIDE = 4


class JobTable(DataTable[Text]):
    """Rows by job id."""

    def __init__(self) -> None:
        super().__init__(id="table", cursor_type="row", cell_padding=0)
        self._ids: list[int] = []
        self._sized: list[tuple[str, int]] = []
        self._cells: list[list[str]] = []

    @property
    def chosen(self) -> int:
        """The job under the cursor; 0 where there is no row."""
        return self._ids[self.cursor_row] if 0 <= self.cursor_row < len(self._ids) else 0

    def show(self, tab: str, jobs: Sequence[Any], marked: Collection[int]) -> None:
        """Draws only what has changed, so that neither the cursor nor the view jumps."""
        sized, cells = rows.table(tab, jobs, (self.size.width or self.app.size.width) - ASIDE)
        cells = [[rows.MARKED if job["id"] in marked else "", *row] for job, row in zip(jobs, cells, strict=True)]
        ids = [job["id"] for job in jobs]
        if sized == self._sized and ids == self._ids:
            for number, (old, new) in enumerate(zip(self._cells, cells, strict=True)):
                for place, (was, text) in enumerate(zip(old, new, strict=True)):
                    if was != text:
                        self.update_cell_at(Coordinate(number, place), _cell(text, place, sized))
            self._cells = cells
        else:
            self._fill(sized, ids, cells)

    def _fill(self, sized: list[tuple[str, int]], ids: list[int], cells: list[list[str]]) -> None:
        chosen, place, scroll = self.chosen, self.cursor_row, self.scroll_y
        self._sized, self._ids, self._cells = sized, ids, cells
        self.clear(columns=True)
        self.add_column("", width=2)
        for heading, width in sized:
            self.add_column(heading, width=width + 1)
        for job_id, row in zip(ids, cells, strict=True):
            self.add_row(*(_cell(text, number, sized) for number, text in enumerate(row)), key=str(job_id))
        if ids:
            self.move_cursor(row=ids.index(chosen) if chosen in ids else min(place, len(ids) - 1), scroll=False)
            self.scroll_to(y=scroll, animate=False)


def _cell(text: str, place: int, sized: list[tuple[str, int]]) -> Text:
    """`place` 0 is the mark. The state's word has its colour; nothing is told by colour alone."""
    style = rows.STYLES.get(text, "") if place and sized[place - 1][0] == "STATE" else ""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
