"""What keeps every job of this node from being started, whatever it is: noted by the agent, told to everybody."""

from __future__ import annotations

import logging

from gpuq.domain.installation_keys import InstallationKey
from gpuq.engine.context import Context
from gpuq.errors import GpuqError

log = logging.getLogger(__name__)


class StartObstacles:
    """The agent's own, by what is in the way (`disk`, `redis` …). Others read what `gpuq.engine.switches` finds in
    SQL: a text for people. Written when it changes, and not before somebody has looked whether there are any."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._found: dict[str, str] = {}
        # What SQL says; an earlier agent's last word is not known.
        self._told: str | None = ""

    def note(self, what: str, why: str) -> None:
        """`why`: a sentence for people, in place of the one before."""
        self._found[what] = why

    def meet(self, what: str, why: str) -> None:
        """Notes it and tells it at once."""
        self.note(what, why)
        self.tell()

    def clear(self, *what: str) -> None:
        """It is not in the way any more, or never was."""
        for each in what:
            self._found.pop(each, None)

    def tell(self) -> None:
        """Writes down what is in the way now. While the database takes no writes it is written later."""
        why = "; ".join(self._found.values()) or None
        if why == self._told:
            return
        if why is not None:
            log.error("nothing can be started on this machine: %s (tried again by itself)", why)
        elif self._told:
            log.info("jobs can be started again")
        key = InstallationKey.LAUNCH_TROUBLE.of(self._ctx.node)
        try:
            with self._ctx.records.write() as tx:
                if tx.value(key) != why:
                    tx.set_value(key, why, self._ctx.clock.now())
        except GpuqError as error:
            # The database may be on the same disk.
            log.debug("the trouble is not noted: %s", error.message)
            return
        self._told = why
