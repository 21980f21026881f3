"""What the agent makes of a hot store that does not serve it: people are told once, and again when it is another."""

from __future__ import annotations

from gpuq.engine.context import Context
from gpuq.engine.hot.owner import stranger
from gpuq.engine.start_obstacles import StartObstacles
from gpuq.errors import HotStoreCold, HotStoreUnavailable
from gpuq.ports.notify import Topic


class HotTrouble:
    """The agent's own. What it meets it notes among the `obstacles`."""

    def __init__(self, ctx: Context, obstacles: StartObstacles) -> None:
        self._ctx = ctx
        self._obstacles = obstacles
        self._kind: type[HotStoreUnavailable] | None = None

    def met(self, error: HotStoreUnavailable) -> None:
        """A plan could not be made, or not be carried out. A cold store is rebuilt: of that people are told when it has
        not come about by the next plan."""
        cold = isinstance(error, HotStoreCold)
        if cold:
            self._ctx.epoch.refresh()
            self._ctx.notifier.publish(Topic.COLD)
        if type(error) is self._kind if cold else type(error) is not self._kind:
            self._obstacles.meet("redis", self._why_cold(error) if cold else error.message)
        self._kind = type(error)

    def _why_cold(self, error: HotStoreUnavailable) -> str:
        """Why a cold store stays so: it may be another installation's."""
        try:
            with self._ctx.records.read() as tx:
                return stranger(self._ctx, tx) or error.message
        except HotStoreUnavailable:
            return error.message

    @property
    def lasts(self) -> bool:
        """Whether the last plan met it."""
        return self._kind is not None

    def over(self) -> None:
        """A plan was made."""
        if self._kind is not None:
            if self._kind is not HotStoreCold:
                # Whoever was in the way may have taken queued jobs with it.
                self._ctx.notifier.publish(Topic.MISSED)
            self._kind = None
            self._obstacles.clear("redis")
            self._obstacles.tell()
