"""What the screen shows of the queue: which part of it somebody looks at, and the requests for that. Never all of it:
a page of a hundred rows at a time, however long the line is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gpuq.client.calls import Calls
from gpuq.errors import UsageError

PAGE = 100
TABS = ("mine", "all", "history", "dead")
# What the daemon chooses by; other words of a filter choose among the rows of the page.
FILTERS = ("name", "user", "state", "group")


@dataclass(frozen=True)
class View:
    """`asked`: filters of the daemon's; `words`: what each row must contain. `offset`: rows of the line passed over;
    `after`: of the history, the last job of each page before this one."""

    tab: str = "mine"
    filter: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    offset: int = 0
    after: tuple[int, ...] = ()

    def on(self, tab: str) -> View:
        """The first page of another tab, with the same filter."""
        return replace(self, tab=tab, offset=0, after=())

    def filtered(self, text: str) -> View:
        """`name=bert state=queued mnist`: the first page of what fits. Raises UsageError."""
        asked, words = {}, []
        for word in text.split():
            name, equals, value = word.partition("=")
            if not equals:
                words.append(word.lower())
            elif name not in FILTERS or not value:
                raise UsageError(f"no filter {word!r}", hint="write " + " ".join(f"{one}=…" for one in FILTERS))
            else:
                asked[name] = value
        return replace(self, filter=" ".join(text.split()), asked=asked, words=tuple(words), offset=0, after=())

    def next(self, seen: Seen) -> View:
        """The page after the one that was seen; itself where there is none."""
        if not seen.more or not seen.last_id:
            return self
        if self.tab == "history":
            return replace(self, after=(*self.after, seen.last_id))
        return replace(self, offset=self.offset + PAGE)

    def previous(self) -> View:
        """The page before; itself on the first."""
        return replace(self, offset=max(0, self.offset - PAGE), after=self.after[:-1])

    @property
    def page(self) -> int:
        """From 1."""
        return 1 + (len(self.after) if self.tab == "history" else self.offset // PAGE)


@dataclass(frozen=True)
class Seen:
    """An answer to a view. `jobs`: the rows; `counts`: of the whole queue; `total`: rows of all pages, where that is
    known; `more`: whether a further page may have some; `last_id`: the last job of this one."""

    view: View
    jobs: list[Any]
    counts: Mapping[str, Any]
    gpus: list[Any]
    total: int | None
    more: bool
    last_id: int


def look(client: Calls, view: View, me: str) -> Seen:
    """Asks for one page of `view`, the counts and the GPUs: two requests, or three. Raises what the client raises."""
    total: int | None = None
    if view.tab in {"mine", "all"}:
        asked = {**view.asked, **({"user": me} if view.tab == "mine" else {})}
        counts = client.queue(limit=PAGE, offset=view.offset, **asked)
        jobs, total = counts["jobs"], int(counts["total"])
        more = view.offset + len(jobs) < total
    else:
        counts = client.queue(limit=0)
        if view.tab == "history":
            jobs = client.history(limit=PAGE, after_id=view.after[-1] if view.after else None, **view.asked)
            more = len(jobs) == PAGE
        else:
            letters = [_dead(letter) for letter in client.dlq() if _fits(letter, view.asked)]
            jobs, total = letters[view.offset : view.offset + PAGE], len(letters)
            more = view.offset + len(jobs) < total
    last_id = jobs[-1]["id"] if jobs else 0
    rows = [job for job in jobs if all(word in _text(job) for word in view.words)]
    return Seen(view, rows, counts, client.gpus(), total, more, last_id)


def _dead(letter: Any) -> Any:
    """A dead letter as a row; its output stays behind, for there may be many."""
    return {**letter, "id": letter["job_id"], "state": "failed", "log_tail": None}


def _fits(letter: Any, asked: Mapping[str, str]) -> bool:
    """The daemon gives all letters; they know name and user alone."""
    return all(letter[name] == value for name, value in asked.items() if name in {"name", "user"})


def _text(job: Any) -> str:
    return f"{job['id']} {job['name']} {job['user']} {job['state']} {job.get('group') or ''}".lower()
