"""A driver made of plain objects: the functions of pynvml that gpuq asks, with pynvml's habits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.gpus.nvml import NvmlGpus

GIB = 1024**3


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass(eq=False)
class Card:
    uuid: str
    bus: str
    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * GIB
    reserved: int = GIB // 2
    used: int = 0
    compute: list[tuple[int, int | None]] = field(default_factory=list)
    graphics: list[tuple[int, int | None]] = field(default_factory=list)
    load: int = 0
    error: int | None = None
    """What every question about this card is answered with."""
    failing: dict[str, int] = field(default_factory=dict)
    """Function name → error, for single questions."""
    ecc: int = 0
    pages_pending: int = 0
    rows: tuple[int, int, int, int] = (0, 0, 0, 0)
    recovery: int = 0
    mig: list[Card] | None = None
    minor: int = 0
    instance: tuple[int, int] = (0, 0)
    """GPU instance and compute instance."""
    nvlinks: list[str] = field(default_factory=list)
    """PCI addresses at the other ends; `switch` for an NVSwitch."""


class FakeNvml:
    NVMLError = NVMLError
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_TEMPERATURE_GPU = 0
    nvmlMemory_v2 = 0x02000028
    nvmlEventTypeXidCriticalError = 8

    def __init__(self, cards: list[Card]) -> None:
        self.cards = cards
        self.init_error: int | None = None
        self.started = False
        self.starts = 0
        self.events: list[Any] = []
        self.levels: dict[frozenset[str], int] = {}
        self.asked: list[str] = []

    def _check(self, name: str, card: Card | None = None) -> None:
        self.asked.append(name)
        if not self.started:
            raise NVMLError(1)
        if card is not None:
            error = card.failing.get(name, card.error)
            if error is not None:
                raise NVMLError(error)

    def nvmlInit(self) -> None:
        self.starts += 1
        if self.init_error is not None:
            raise NVMLError(self.init_error)
        self.started = True

    def nvmlShutdown(self) -> None:
        self._check("nvmlShutdown")
        self.started = False

    def nvmlDeviceGetCount(self) -> int:
        self._check("nvmlDeviceGetCount")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        card = self.cards[index]
        self._check("nvmlDeviceGetHandleByIndex", card)
        return card

    def nvmlDeviceGetUUID(self, card: Card) -> bytes:
        self._check("nvmlDeviceGetUUID", card)
        return card.uuid.encode()

    def nvmlDeviceGetName(self, card: Card) -> str:
        self._check("nvmlDeviceGetName", card)
        return card.name

    def nvmlDeviceGetPciInfo(self, card: Card) -> Any:
        self._check("nvmlDeviceGetPciInfo", card)
        return SimpleNamespace(busId=f"0000{card.bus}".upper().encode())

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:
        self._check("nvmlDeviceGetMigMode", card)
        if card.name.startswith("NVIDIA GeForce"):
            raise NVMLError(3)
        return [int(card.mig is not None)] * 2

    def nvmlDeviceGetMinorNumber(self, card: Card) -> int:
        self._check("nvmlDeviceGetMinorNumber", card)
        return card.minor

    def nvmlDeviceGetGpuInstanceId(self, card: Card) -> int:
        return card.instance[0]

    def nvmlDeviceGetComputeInstanceId(self, card: Card) -> int:
        return card.instance[1]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: Card) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, index: int) -> Card:
        if card.mig is None or index >= len(card.mig):
            raise NVMLError(6)
        return card.mig[index]

    def nvmlDeviceGetMemoryInfo(self, card: Card, version: int | None = None) -> Any:
        self._check("nvmlDeviceGetMemoryInfo", card)
        if version is None:
            return SimpleNamespace(total=card.total, used=card.used + card.reserved)
        return SimpleNamespace(total=card.total, used=card.used, reserved=card.reserved)

    def _list(self, name: str, card: Card, entries: list[tuple[int, int | None]]) -> list[Any]:
        self._check(name, card)
        return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in entries]

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> list[Any]:
        return self._list("nvmlDeviceGetComputeRunningProcesses", card, card.compute)

    def nvmlDeviceGetGraphicsRunningProcesses(self, card: Card) -> list[Any]:
        return self._list("nvmlDeviceGetGraphicsRunningProcesses", card, card.graphics)

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> Any:
        self._check("nvmlDeviceGetUtilizationRates", card)
        return SimpleNamespace(gpu=card.load, memory=0)

    def nvmlDeviceGetTemperature(self, card: Card, sensor: int) -> int:
        self._check("nvmlDeviceGetTemperature", card)
        return 41

    def nvmlDeviceGetPowerUsage(self, card: Card) -> int:
        self._check("nvmlDeviceGetPowerUsage", card)
        return 70_500

    def nvmlDeviceGetTotalEccErrors(self, card: Card, kind: int, counter: int) -> int:
        self._check("nvmlDeviceGetTotalEccErrors", card)
        return card.ecc

    def nvmlDeviceGetRetiredPagesPendingStatus(self, card: Card) -> int:
        self._check("nvmlDeviceGetRetiredPagesPendingStatus", card)
        return card.pages_pending

    def nvmlDeviceGetRemappedRows(self, card: Card) -> tuple[int, int, int, int]:
        self._check("nvmlDeviceGetRemappedRows", card)
        return card.rows

    def nvmlDeviceGetFieldValues(self, card: Card, fields: list[int]) -> list[Any]:
        self._check("nvmlDeviceGetFieldValues", card)
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=card.recovery))]

    def nvmlDeviceGetNvLinkState(self, card: Card, link: int) -> int:
        self._check("nvmlDeviceGetNvLinkState", card)
        if link >= len(card.nvlinks):
            raise NVMLError(2)
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, card: Card, link: int) -> int:
        return 2 if card.nvlinks[link] == "switch" else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, card: Card, link: int) -> Any:
        return SimpleNamespace(busId=f"0000{card.nvlinks[link]}".encode())

    def nvmlDeviceGetTopologyCommonAncestor(self, first: Card, second: Card) -> int:
        level = self.levels.get(frozenset((first.bus, second.bus)))
        if level is None:
            raise NVMLError(999)
        return level

    def nvmlEventSetCreate(self) -> object:
        return object()

    def nvmlEventSetFree(self, event_set: object) -> None:
        self._check("nvmlEventSetFree")

    def nvmlDeviceGetSupportedEventTypes(self, card: Card) -> int:
        self._check("nvmlDeviceGetSupportedEventTypes", card)
        return 0 if card.name.startswith("NVIDIA GeForce") else 8 | 1

    def nvmlDeviceRegisterEvents(self, card: Card, kinds: int, event_set: object) -> None:
        self._check("nvmlDeviceRegisterEvents", card)

    def nvmlEventSetWait_v2(self, event_set: object, timeout_ms: int) -> Any:
        assert timeout_ms == 0, "a reading must not wait for events"
        if not self.events:
            raise NVMLError(10)
        return self.events.pop(0)

    def send_xid(self, card: Card, xid: int) -> None:
        self.events.append(SimpleNamespace(device=card, eventType=8, eventData=xid, gpuInstanceId=0xFFFFFFFF))


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Machine:
    """Two cards unless told otherwise, a clock to turn, and the source under test."""

    def __init__(self, tmp_path: Path, cards: list[Card] | None = None) -> None:
        self.cards = [Card("GPU-a", "0000:3b:00.0"), Card("GPU-b", "0000:af:00.0")] if cards is None else cards
        self.nvml = FakeNvml(self.cards)
        self.clock = Clock()
        self.sysfs = tmp_path
        self.gpus = NvmlGpus(
            self.nvml, sysfs=tmp_path, dev=tmp_path / "dev", proc=tmp_path / "proc", monotonic=self.clock
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def machine_of(tmp_path: Path) -> Any:
    return lambda *cards: Machine(tmp_path, list(cards))


@pytest.fixture
def card() -> type[Card]:
    return Card
