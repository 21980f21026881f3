"""The GPUs of this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from gpuq.domain.gpu import Gpu, GpuObservation


class GpuSource(Protocol):
    """The GPUs of this machine, real or simulated."""

    def claim(self) -> None:
        """By whoever is going to give them to jobs, first of all. Raises AlreadyRunning when another gpuq does."""

    def inventory(self) -> Sequence[Gpu]:
        """By index. Empty on a machine without a GPU or driver; never raises for that."""

    def observe(self, now: float) -> Sequence[GpuObservation]:
        """One reading of every GPU of the inventory, at epoch seconds `now`. A GPU that does not
        answer is reported with `problem`, not left out."""

    def hidden_from(self, uuids: Collection[str]) -> Sequence[str]:
        """The paths of the device nodes, of those that there are now, that a job with these GPUs has no business with:
        the nodes of all other GPUs. Empty where GPUs have no nodes."""

    def why_empty(self) -> str | None:
        """A sentence and what to do, when the inventory is empty because there is no driver."""

    def close(self) -> None:
        """Lets the driver go."""
