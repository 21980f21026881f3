"""Room on the GPUs: who holds what until when, what fits now, and when something will fit.

A GPU has one exclusive holder, or shares that fit its memory. Devices are independent of each other, so the time at
which a job of n GPUs fits is the n-th smallest of the devices' times, on the node where that is earliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import inf

from gpuq.domain import gpu
from gpuq.scheduler.closing import Closing
from gpuq.scheduler.order import Shape
from gpuq.scheduler.placement import closest, distances, positions
from gpuq.scheduler.snapshot import Device, Holding


def expected_end(holding: Holding, now: float) -> float:
    """Epoch seconds. An overrun is expected to last as long again: the expectation doubles until it exceeds what has
    passed. One that is being stopped is expected to be gone at once."""
    if holding.stopping:
        return now
    elapsed = now - holding.started_at
    total = max(holding.expected_s, 1.0)
    while total <= elapsed:
        total *= 2
    return holding.started_at + total


@lru_cache(maxsize=16)
def _topology(key: tuple[tuple[str, int | None, tuple[tuple[str, int], ...]], ...]) -> list[list[int]] | None:
    devices = [
        Device(uuid=uuid, index=at, memory_mb=0, numa_node=numa, links=dict(links))
        for at, (uuid, numa, links) in enumerate(key)
    ]
    return distances(devices)


class Machine:
    """What does not change within a plan or a forecast: the devices, and which of them a shape may use."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = devices
        self.at = {device.uuid: at for at, device in enumerate(devices)}
        masks: dict[int, int] = {}
        self.usable = 0
        for at, device in enumerate(devices):
            masks[device.node] = masks.get(device.node, 0) | 1 << at
            if device.unavailable is None:
                self.usable |= 1 << at
        self.nodes = list(masks.values())
        self._plain = all(not d.links and d.numa_node is None for d in devices)
        self._allowed: dict[Shape, int] = {}

    @property
    def topology(self) -> list[list[int]] | None:
        """How near the GPUs are to each other, for the placement; None where all are alike."""
        if self._plain:
            return None
        return _topology(tuple((d.uuid, d.numa_node, tuple(sorted(d.links.items()))) for d in self.devices))

    def allowed(self, shape: Shape) -> int:
        """Devices of the right model, number and memory, whether or not they can be used now."""
        mask = self._allowed.get(shape)
        if mask is None:
            mask = self._allowed[shape] = sum(1 << at for at, d in enumerate(self.devices) if suits(d, shape))
        return mask

    def possible(self, shape: Shape, *, usable: bool = False) -> bool:
        """Whether some node has enough devices for it, were they all free. `usable`: of those in service now."""
        allowed = self.allowed(shape) & (self.usable if usable else -1)
        # A machine may have no GPU at all, and so no node here.
        return shape.gpus == 0 or any((allowed & node).bit_count() >= shape.gpus for node in self.nodes)


def suits(device: Device, shape: Shape) -> bool:
    """As `gpuq.domain.gpu.suits`."""
    return gpu.suits(
        device.index, device.model, device.memory_mb, ids=shape.ids, wanted_model=shape.model, mem_mb=shape.mem_mb
    )


class Room:
    """Holders of every device: (expected end, MiB of a share or None for alone). Grows as a plan starts jobs."""

    def __init__(self, machine: Machine, closing: Closing | None = None) -> None:
        self.machine = machine
        self.closing = closing
        # What a planned drain covers, as a mask.
        self.closed = 0
        if closing is not None:
            covered = (at for at, device in enumerate(machine.devices) if closing.window.covers(device.uuid))
            self.closed = sum(1 << at for at in covered)
        self.holders: list[list[tuple[float, int | None]]] = [[] for _ in machine.devices]
        self.free = machine.usable
        self.shared = 0

    def hold(self, at: int, until: float, mem_mb: int | None) -> None:
        """Puts a holder on the GPU at position `at` until `until`. `mem_mb` None takes the GPU whole, else a share
        of it."""
        self.holders[at].append((until, mem_mb))
        bit = 1 << at
        self.free &= ~bit
        if mem_mb is None:
            self.shared &= ~bit
        elif self.machine.usable & bit and all(mem is not None for _, mem in self.holders[at]):
            self.shared |= bit

    def spare_mb(self, at: int) -> int:
        """Memory for one more share on a device that has no exclusive holder."""
        device = self.machine.devices[at]
        return device.memory_mb - device.unaccounted_mb - sum(mem or 0 for _, mem in self.holders[at])

    def kept_for_drain(self, shape: Shape) -> int:
        """Devices on which no job of this shape may start now, because a planned drain would come before its end."""
        closing = self.closing
        return self.closed if closing is not None and closing.blocks(shape.ends_in, closing.now) else 0

    def shut(self, shape: Shape) -> bool:
        """The same of a job without GPUs, which only a drain of the whole machine concerns."""
        closing = self.closing
        if shape.gpus or closing is None or closing.window.gpus is not None:
            return False
        return closing.blocks(shape.ends_in, closing.now)

    def fitting(self, shape: Shape) -> int:
        """Devices that have room for one GPU of this shape now."""
        allowed = self.machine.allowed(shape)
        if self.closed:
            allowed &= ~self.kept_for_drain(shape)
        mask = self.free & allowed
        if shape.mem_mb is not None:
            for at in positions(self.shared & allowed):
                if self.spare_mb(at) >= shape.mem_mb:
                    mask |= 1 << at
        return mask

    def fits(self, shape: Shape) -> bool:
        """Whether a job of this shape fits now, all of its GPUs in one node."""
        mask = self.fitting(shape)
        return mask.bit_count() >= shape.gpus and any((mask & n).bit_count() >= shape.gpus for n in self.machine.nodes)

    def choose(self, shape: Shape, avoid: int = 0) -> int | None:
        """The devices to start on, as a mask, or None. Devices in `avoid` (what a reservation counts on) come last.

        Among nodes the fullest that has room. Shares go where the least memory stays over, exclusive jobs where the
        links are best.
        """
        mask = self.fitting(shape)
        best: tuple[int, int, int] | None = None
        for number, node in enumerate(self.machine.nodes):
            here = mask & node
            if here.bit_count() >= shape.gpus:
                clear = here & ~avoid
                rank = (max(0, shape.gpus - clear.bit_count()), here.bit_count(), number)
                best = rank if best is None or rank < best else best
        if best is None:
            return None
        here = mask & self.machine.nodes[best[2]]
        clear = here & ~avoid
        if clear.bit_count() >= shape.gpus:
            return self._pick(shape, clear, shape.gpus)
        return clear | self._pick(shape, here & avoid, shape.gpus - clear.bit_count())

    def _pick(self, shape: Shape, mask: int, count: int) -> int:
        if shape.mem_mb is None:
            return closest(mask, count, self.machine.topology)
        tightest = sorted(positions(mask), key=lambda at: (self.spare_mb(at), at))[:count]
        return sum(1 << at for at in tightest)

    def fits_at(self, at: int, shape: Shape) -> float:
        """When this device has room for one GPU of the shape, and time enough before a planned drain; inf for one that
        is out of service, and for one that is not known to come back from the drain in time."""
        time = self._free_at(at, shape)
        closing = self.closing
        if closing is not None and self.closed >> at & 1 and closing.blocks(shape.ends_in, time):
            return max(time, closing.reopens)
        return time

    def _free_at(self, at: int, shape: Shape) -> float:
        if not self.machine.usable >> at & 1:
            return inf
        holders = self.holders[at]
        if not holders:
            return -inf
        if shape.mem_mb is None:
            return max(holders)[0] if len(holders) == 1 else max(until for until, _ in holders)
        time, spare = -inf, self.machine.devices[at].memory_mb - sum(mem or 0 for _, mem in holders)
        exclusive = sum(mem is None for _, mem in holders)
        for until, mem in sorted(holders, key=lambda holder: holder[0]):
            if spare >= shape.mem_mb and not exclusive:
                break
            time, spare, exclusive = until, spare + (mem or 0), exclusive - (mem is None)
        return time

    def earliest(self, shape: Shape) -> tuple[float, int]:
        """When a job of this shape fits as a whole, and the devices that have room for it then, on that node."""
        allowed = self.machine.allowed(shape)
        best, best_mask = inf, 0
        for node in self.machine.nodes:
            times = sorted((self.fits_at(at, shape), at) for at in positions(allowed & node))
            if len(times) >= shape.gpus and times[shape.gpus - 1][0] < best:
                best = times[shape.gpus - 1][0]
                best_mask = sum(1 << at for time, at in times if time <= best)
        return best, best_mask

    def still_fits(self, shape: Shape, at_time: float, taken: int, mem_mb: int | None) -> bool:
        """Whether `shape` still fits at `at_time` if a job of `mem_mb` a GPU holds `taken` beyond it."""
        allowed = self.machine.allowed(shape)
        for node in self.machine.nodes:
            count = 0
            for at in positions(allowed & node):
                if not taken >> at & 1:
                    count += self.fits_at(at, shape) <= at_time
                elif mem_mb is not None and shape.mem_mb is not None:
                    # It outlasts every other share here, so that it is the one that is never given back.
                    self.holders[at].append((inf, mem_mb))
                    count += self.fits_at(at, shape) <= at_time
                    self.holders[at].pop()
            if count >= shape.gpus:
                return True
        return False
