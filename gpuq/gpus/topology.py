"""How well GPUs are connected: see `gpuq.domain.gpu.Gpu.links` for the scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuq.gpus.driver import Driver, GpuSilent, text_of

_NVLINK = 0
# nvmlGpuTopologyLevel_t; 0 is two GPUs on one board, which share that board's switch.
_LEVELS = {0: 1, 10: 1, 20: 2, 30: 3, 40: 4, 50: 5}
_TO_SWITCH = 2  # NVML_NVLINK_DEVICE_TYPE_SWITCH
_MAX_LINKS = 36


def bus_id(driver: Driver, card: Any) -> str:
    """PCI address as the kernel writes it, `0000:3b:00.0`; NVML's domain has eight digits."""
    domain, rest = text_of(driver.must("nvmlDeviceGetPciInfo", card).busId).lower().split(":", 1)
    return f"{domain[-4:]}:{rest}"


def numa_node(sysfs: Path, address: str) -> int | None:
    """Of the processor that the card hangs on; None when the kernel does not know (it writes -1)."""
    try:
        node = int((sysfs / "bus/pci/devices" / address / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def links(driver: Driver, cards: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """For each card (UUID → handle, UUID → PCI address): other UUID → level. Unknown pairs are absent."""
    peers = {uuid: _nvlink_peers(driver, card) for uuid, card in cards.items()}
    found: dict[str, dict[str, int]] = {uuid: {} for uuid in cards}
    uuids = list(cards)
    for place, first in enumerate(uuids):
        for second in uuids[place + 1 :]:
            direct = addresses[second] in peers[first][0] or addresses[first] in peers[second][0]
            level = _NVLINK if direct or (peers[first][1] and peers[second][1]) else None
            if level is None:
                level = _LEVELS.get(_common_ancestor(driver, cards[first], cards[second]))
            if level is not None:
                found[first][second] = found[second][first] = level
    return found


def _nvlink_peers(driver: Driver, card: Any) -> tuple[set[str], bool]:
    """PCI addresses at the other ends of active links, and whether any leads to an NVSwitch, which joins all."""
    addresses: set[str] = set()
    switched = False
    for link in range(_MAX_LINKS):
        try:
            state = driver.ask("nvmlDeviceGetNvLinkState", card, link)
            if state is None:
                break
            if not state:
                continue
            if driver.ask("nvmlDeviceGetNvLinkRemoteDeviceType", card, link) == _TO_SWITCH:
                switched = True
                continue
            remote = driver.ask("nvmlDeviceGetNvLinkRemotePciInfo", card, link)
        except GpuSilent:
            break
        if remote is not None:
            domain, rest = text_of(remote.busId).lower().split(":", 1)
            addresses.add(f"{domain[-4:]}:{rest}")
    return addresses, switched


def _common_ancestor(driver: Driver, first: Any, second: Any) -> int:
    try:
        return int(driver.ask("nvmlDeviceGetTopologyCommonAncestor", first, second, default=-1))
    except GpuSilent:
        return -1
