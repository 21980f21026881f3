"""Which of the free GPUs a job gets: the best-connected set for several, and for one the GPU that is missed least.

GPUs are positions in a list of devices, sets of them are bit masks. Distance follows `Gpu.links`: 0 NVLink, 1 one
PCIe switch, 2 several switches, 3 one host bridge, 4 one NUMA node, 5 across NUMA nodes or unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpuq.scheduler.snapshot import Device

FARTHEST = 5


def positions(mask: int) -> Iterator[int]:
    """The positions of the set bits, from the lowest."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def distances(devices: Sequence[Device]) -> list[list[int]] | None:
    """Between every two devices; None when all are equally far from each other, so that any set is as good."""
    table = [[0 if a is b else _distance(a, b) for b in devices] for a in devices]
    seen = {table[a][b] for a in range(len(devices)) for b in range(a)}
    return table if len(seen) > 1 else None


def _distance(a: Device, b: Device) -> int:
    level = a.links.get(b.uuid, b.links.get(a.uuid))
    if level is not None:
        return level
    return 4 if a.numa_node is not None and a.numa_node == b.numa_node else FARTHEST


def closest(free: int, count: int, table: list[list[int]] | None) -> int:
    """`count` of the `free` positions, as a mask. Raises ValueError when there are not enough.

    A set grows from every seed by the device nearest to it. Sets compare by their widest link, then by all their
    links, then by what they take from the GPUs that stay free: a pair leaves a connected four whole.
    """
    if free.bit_count() < count:
        raise ValueError("not enough free devices")
    candidates = list(positions(free))
    if table is None or count == len(candidates) or count == 0:
        return sum(1 << at for at in candidates[:count])
    best: tuple[tuple[int, int, int], list[int]] | None = None
    for seed in candidates:
        chosen = [seed]
        others = [at for at in candidates if at != seed]
        while len(chosen) < count:
            nearest = min(others, key=lambda at: (sum(table[at][c] for c in chosen), _missed(at, others, table), at))
            chosen.append(nearest)
            others.remove(nearest)
        cost = _cost(chosen, others, table)
        if best is None or cost < best[0]:
            best = (cost, chosen)
    assert best is not None
    return sum(1 << at for at in best[1])


def _missed(at: int, others: Sequence[int], table: list[list[int]]) -> int:
    """How near `at` is to the others, all together: what they lose with it."""
    return sum(FARTHEST - table[at][other] for other in others if other != at)


def _cost(chosen: Sequence[int], left: Sequence[int], table: list[list[int]]) -> tuple[int, int, int]:
    links = [table[a][b] for n, a in enumerate(chosen) for b in chosen[:n]]
    return max(links, default=0), sum(links), sum(_missed(at, left, table) for at in chosen)
