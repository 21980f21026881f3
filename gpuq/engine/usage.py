"""What live attempts use of their GPUs, from the same readings that say whether a GPU is free."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gpuq.domain.gpu import GpuObservation
from gpuq.engine.live import Live
from gpuq.engine.processes import belongs_to


def sample(observations: Sequence[GpuObservation], lives: Collection[Live]) -> None:
    """Adds one sample to each live attempt: memory by its own processes (peak, MiB, per GPU), utilisation of the
    GPUs (0 to 1). A simulated GPU reports no utilisation and gives none."""
    by_uuid = {reading.uuid: reading for reading in observations}
    for live in lives:
        if live.launched is None:
            continue
        mine = ({live.launched.supervisor_pid}, {live.launched.pid})
        for uuid in live.gpu_uuids:
            reading = by_uuid.get(uuid)
            if reading is None:
                continue
            used = sum(p.mem_mb or 0 for p in reading.processes or () if belongs_to(p.pid, *mine))
            if used:
                live.peak_mb[uuid] = max(used, live.peak_mb.get(uuid, 0))
            if reading.utilisation is not None:
                live.utilisation.append(reading.utilisation)
