"""What gpuq itself has given of each GPU, and to which job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpuq.domain.gpu import IDLE_THRESHOLD_MB, GpuObservation
from gpuq.engine.attempt.tracked import TrackedAttempt


@dataclass(frozen=True, slots=True)
class Ledger:
    """What gpuq itself has given: GPU uuid → (job id, share in MiB or None for alone). A share is what was asked for,
    or the observed peak where that is larger."""

    held: Mapping[str, Sequence[tuple[int, int | None]]]

    def unaccounted_mb(self, seen: GpuObservation | None) -> int:
        """Memory in use on a shared GPU beyond its shares and the driver's own: a driver need not tell whose it is."""
        shares = [] if seen is None else self.held.get(seen.uuid, ())
        if seen is None or not shares or any(mem is None for _, mem in shares):
            return 0
        return max(0, seen.used_mb - sum(mem or 0 for _, mem in shares) - IDLE_THRESHOLD_MB)


def ledger(tracked_attempts: Iterable[TrackedAttempt]) -> Ledger:
    """What the attempts hold: of each GPU the job and the MiB reserved there, None where it is alone."""
    held: dict[str, list[tuple[int, int | None]]] = {}
    for tracked in tracked_attempts:
        for uuid in tracked.gpu_uuids:
            held.setdefault(uuid, []).append((tracked.job.id, tracked.reserved_mb(uuid)))
    return Ledger(held)
