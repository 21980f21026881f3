"""Whom longer running jobs would move back: asked of a picture of the line as it is now."""

from __future__ import annotations

from collections.abc import Mapping

from gpuq.engine.context import QueryContext
from gpuq.engine.queries.forecast_cache import ForecastCache
from gpuq.scheduler.longer import Delay, first_delayed


class LongerJobs:
    """`forecasts`: those of the process. Thread-safe."""

    def __init__(self, ctx: QueryContext, forecasts: ForecastCache) -> None:
        self._ctx = ctx
        self._forecasts = forecasts

    def first_delayed(self, limits: Mapping[int, tuple[float | None, float | None]]) -> Delay | None:
        """`limits`: by id of a running job, the time limit that it has, and would have, in seconds, None: none. As far
        as the forecast looks down the line."""
        picture = self._forecasts.picture(fresh=True)
        return first_delayed(picture.snapshot, self._ctx.clock.now(), limits)
