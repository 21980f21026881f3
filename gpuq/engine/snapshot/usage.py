"""What live attempts use of their GPUs, from the same readings that say whether a GPU is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from gpuq.domain.gpu import IDLE_THRESHOLD_MB, GpuObservation
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.snapshot.gpu_processes import belongs_to

# Utilisation from which on a GPU is at work.
BUSY = 0.05


def sample(observations: Sequence[GpuObservation], tracked_attempts: Collection[TrackedAttempt]) -> None:
    """Adds one sample to each live attempt: memory by its own processes (peak, MiB, per GPU), utilisation of the
    GPUs (0 to 1). A simulated GPU reports no utilisation and gives none."""
    see_peaks(observations, tracked_attempts)
    see_work(observations, tracked_attempts)
    by_uuid = {reading.uuid: reading for reading in observations}
    for tracked in tracked_attempts:
        for uuid in tracked.gpu_uuids if tracked.launched is not None else ():
            reading = by_uuid.get(uuid)
            if reading is not None and reading.utilisation is not None:
                tracked.utilisation.append(reading.utilisation)


def see_work(observations: Sequence[GpuObservation], tracked_attempts: Collection[TrackedAttempt]) -> None:
    """Notes when each launched attempt was last seen to use a GPU of its own. One whose use is not known counts as
    used."""
    by_uuid = {reading.uuid: reading for reading in observations}
    for tracked in tracked_attempts:
        readings = [reading for uuid in tracked.gpu_uuids if (reading := by_uuid.get(uuid)) is not None]
        if tracked.launched is None or not readings:
            continue
        worked = any(reading.utilisation is None or reading.utilisation >= BUSY for reading in readings)
        if worked or tracked.busy_at is None:
            tracked.busy_at = readings[0].at


def see_peaks(observations: Sequence[GpuObservation], tracked_attempts: Collection[TrackedAttempt]) -> None:
    """Raises the peak of memory (MB) of each launched attempt to what the readings show of it."""
    by_uuid = {reading.uuid: reading for reading in observations}
    holders = Counter(uuid for tracked in tracked_attempts for uuid in tracked.gpu_uuids)
    for tracked in tracked_attempts:
        if tracked.launched is None:
            continue
        mine = ({tracked.launched.supervisor_pid}, {tracked.launched.pid})
        for uuid in tracked.gpu_uuids:
            reading = by_uuid.get(uuid)
            used = 0 if reading is None else _used_mb(reading, mine, alone=holders[uuid] == 1)
            if used:
                tracked.peak_mb[uuid] = max(used, tracked.peak_mb.get(uuid, 0))


def _used_mb(reading: GpuObservation, mine: tuple[set[int], set[int]], *, alone: bool) -> int:
    """By processes of one attempt. Inside a container the driver may not say whose the memory is; then a GPU's only
    holder has what is in use beyond the driver's own."""
    used = sum(p.mem_mb or 0 for p in reading.processes or () if belongs_to(p.pid, *mine))
    if used == 0 and alone and all(process.mem_mb is None for process in reading.processes or ()):
        return reading.used_mb - IDLE_THRESHOLD_MB if reading.used_mb > IDLE_THRESHOLD_MB else 0
    return used
