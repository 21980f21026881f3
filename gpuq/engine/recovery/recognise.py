"""At every start: is this the database that the home knows? See `gpuq.engine.home_mark` for why it never errs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from gpuq.domain import failpoints
from gpuq.engine.home_mark import HomeMark, Remembered
from gpuq.errors import DatabaseUnavailable, ForeignDatabase
from gpuq.ports.records import Standing

log = logging.getLogger(__name__)

HINT = (
    "`gpuq db restore FILE` puts a backup back; `gpuq db adopt` goes on with the database as it is:"
    " ids go on, and what ran before is held"
)


class Identity(Protocol):
    """The database's word on itself."""

    def standing(self) -> Standing:
        """Its name and its numbers now. Raises DatabaseUnavailable."""

    def name_first(self, name: str) -> str:
        """Its name: this one, unless it has one. Durable."""

    def take_on(self, name: str, *, last_job: int) -> Standing:
        """Another name, and ids go on after `last_job`. Durable, and its standing then."""


def why_foreign(remembered: Remembered | None, standing: Standing, highest_folder: int) -> str | None:
    """Why it is not the database that the home worked with last; None when it is. `highest_folder`: the highest job id
    that has a folder, 0 for none."""
    if remembered is not None:
        if standing.installation is None:
            return f"the database is a new one, or an old copy; job ids up to {remembered.last_job} were given here"
        if standing.installation != remembered.installation:
            return "the database belongs to another installation, or is a copy from before it was replaced here"
        if standing.last_job < remembered.last_job:
            return _older(f"has given job ids up to {standing.last_job}, and {remembered.last_job} was given already")
        if standing.last_event < remembered.last_event:
            lost = remembered.last_event - standing.last_event
            return _older(f"lacks the last {lost} events")
    if highest_folder > standing.last_job:
        return _older(f"has given job ids up to {standing.last_job}, and job {highest_folder} has a folder already")
    return None


def _older(what: str) -> str:
    return f"the database is older than this home: it {what} (an old copy, or its -wal file is gone)"


def recognise(
    identity: Identity, mark: HomeMark, *, highest_folder: int, daemon: bool, new_name: Callable[[], str]
) -> ForeignDatabase | None:
    """The refusal, or None: then database and home know each other when this returns. `daemon`: what is durable is
    remembered durably; a single command leaves it at what is there. Raises DatabaseUnavailable."""
    try:
        remembered = mark.read()
    except OSError as error:
        raise DatabaseUnavailable(
            f"the home does not tell which database is its own: {error.strerror}: {error.filename}",
            hint="check the folder, its rights, and the disk",
        ) from error
    standing = identity.standing()
    if (why := why_foreign(remembered, standing, highest_folder)) is not None:
        return ForeignDatabase(why, hint=HINT)
    if remembered is None or daemon:
        _remember(identity, mark, remembered, standing, new_name)
    return None


def _remember(
    identity: Identity, mark: HomeMark, remembered: Remembered | None, standing: Standing, new_name: Callable[[], str]
) -> None:
    name = standing.installation
    if name is None:
        name = identity.name_first(new_name())
        failpoints.point("mark.named")
    try:
        if remembered is None:
            mark.take(name, standing)
        else:
            mark.keep(standing)
    except OSError as error:
        # A full disk keeps nobody from starting: the next start tries again.
        log.warning("the home does not remember how far the database is: %s", error)


def recognise_again(identity: Identity, mark: HomeMark, refuse: Callable[[str], None]) -> None:
    """Now and then, in a daemon: `refuse` hears why it is another database by now, or an older one, a dump that was
    restored under it for instance. Otherwise what is durable is remembered. Raises DatabaseUnavailable and OSError."""
    known = mark.known
    standing = identity.standing()
    why = None if known is None else why_foreign(known, standing, 0)
    if why is None:
        mark.keep(standing)
    else:
        log.error("%s; nothing is read or written any more", why)
        refuse(why)
