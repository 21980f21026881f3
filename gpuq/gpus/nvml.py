"""The NVIDIA GPUs of this machine, through the driver's management library (NVML).

Devices are whole cards, or the MIG instances of a card in MIG mode, in PCI bus order, so that without MIG
an index is what `nvidia-smi` and CUDA_DEVICE_ORDER=PCI_BUS_ID call it. A card that was there once stays in the
inventory with its problem said; so does a card that cannot even tell its UUID.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from gpuq.domain.gpu import Gpu, GpuObservation
from gpuq.gpus import topology
from gpuq.gpus.device_nodes import NvidiaNodes
from gpuq.gpus.driver import NOT_SUPPORTED, Driver, DriverGone, GpuSilent, text_of
from gpuq.gpus.health import XidWatch, standing_problem
from gpuq.gpus.occupants import MIB, occupants

_log = logging.getLogger(__name__)

# A driver that is away is asked again this often; MIG instances and returned cards are looked for that often;
# error counters, which are slow to read on some cards, are read that often. Seconds.
RESTART_EVERY_S = 5.0
RESCAN_EVERY_S = 60.0
HEALTH_EVERY_S = 15.0
# The name of a card that never told its own.
_STAND_IN = "GPU-silent-"


@dataclass(frozen=True, slots=True)
class _Device:
    """`handle` is None for a card that does not answer; `card` is the UUID of the whole card; `order` is the
    PCI address and the place among the instances of one card; `nodes` are the paths of its device nodes."""

    gpu: Gpu
    card: str
    order: tuple[str, int]
    handle: Any = None
    card_handle: Any = None
    problem: str | None = None
    nodes: tuple[str, ...] = ()


class NvmlGpus:
    """Thread-safe. `nvml` is the pynvml module or something with its functions; `sysfs`, `dev`, `proc` and `monotonic`
    (seconds) are for tests."""

    def __init__(
        self,
        nvml: Any = None,
        *,
        sysfs: Path = Path("/sys"),
        dev: Path = Path("/dev"),
        proc: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = Driver(nvml or importlib.import_module("pynvml"))
        self._sysfs = sysfs
        self._nodes = NvidiaNodes(dev, proc)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._devices: list[_Device] = []
        self._links: dict[str, dict[str, int]] = {}
        self._xids = XidWatch(self._driver)
        self._standing: dict[str, tuple[float, str | None]] = {}
        self._away: str | None = "the NVIDIA driver has not been asked yet"
        self._next_start = self._next_scan = float("-inf")

    def claim(self) -> None:
        """The driver keeps nobody off: gpuq.gpus.exclusive does."""

    def inventory(self) -> Sequence[Gpu]:
        with self._lock:
            self._ready()
            return [device.gpu for device in self._devices]

    def observe(self, now: float) -> Sequence[GpuObservation]:
        with self._lock:
            self._ready()
            try:
                return self._readings(now)
            except DriverGone:
                # Reloaded under us: one new start at once, for the case that it is back already.
                self._drop_driver("the NVIDIA driver went away")
                self._next_start = float("-inf")
                self._ready()
            try:
                return self._readings(now)
            except DriverGone:
                self._drop_driver("the NVIDIA driver went away")
                return [_silent(device, now, str(self._away)) for device in self._devices]

    def hidden_from(self, uuids: Collection[str]) -> Sequence[str]:
        with self._lock:
            given = [device for device in self._devices if device.gpu.uuid in uuids]
        if not all(device.nodes for device in given):
            # A driver without minor numbers: to hide all nodes would take the job its own GPU.
            _log.warning("the driver does not tell the device node of a GPU: none is hidden from the job that has it")
            return []
        own = {node for device in given for node in device.nodes}
        return [node for node in self._nodes.there() if node not in own]

    def why_empty(self) -> str | None:
        with self._lock:
            self._ready()
            if self._devices:
                return None
            return self._away or "the NVIDIA driver is loaded and finds no GPU; see `nvidia-smi -L` and `lspci`"

    def close(self) -> None:
        with self._lock:
            self._xids.close()
            self._driver.stop()

    def _ready(self) -> None:
        """Starts the driver when it is time to, and looks for devices when it is time to."""
        now = self._monotonic()
        if not self._driver.running and now >= self._next_start:
            self._next_start = now + RESTART_EVERY_S
            self._away = self._driver.start()
            if self._away is None:
                self._xids = XidWatch(self._driver)
                self._standing, self._links = {}, {}
                # Handles of the driver's former life are void.
                self._devices = [replace(device, handle=None, card_handle=None) for device in self._devices]
                self._next_scan = float("-inf")
        if self._driver.running and now >= self._next_scan:
            self._next_scan = now + RESCAN_EVERY_S
            try:
                self._scan()
            except DriverGone as error:
                self._drop_driver(f"the NVIDIA driver went away: {error}")
            except GpuSilent as error:
                # Not one GPU's fault: the count itself could not be read.
                self._drop_driver(f"the NVIDIA driver does not answer: {error}")

    def _drop_driver(self, why: str) -> None:
        _log.warning("%s", why)
        self._driver.stop()
        self._away = why

    def _scan(self) -> None:
        found: list[_Device] = []
        answering: set[str] = set()
        silent: list[tuple[str, str]] = []
        after = ""
        for position in range(self._driver.must("nvmlDeviceGetCount")):
            try:
                devices = self._devices_of(self._driver.must("nvmlDeviceGetHandleByIndex", position))
            except GpuSilent as error:
                silent.append((after, str(error)))
                continue
            found += devices
            answering.add(devices[0].card)
            after = devices[0].order[0]
        found += self._missing(answering, silent)
        found.sort(key=lambda device: device.order)
        self._connect(found)
        before = [device.gpu for device in self._devices]
        self._devices = [
            replace(device, gpu=replace(device.gpu, index=index, links=self._links.get(device.gpu.uuid, {})))
            for index, device in enumerate(found)
        ]
        if before != [device.gpu for device in self._devices]:
            for device in self._devices:
                _log.info("GPU %d: %s, %s", device.gpu.index, device.gpu.uuid, device.gpu.model)

    def _missing(self, answering: set[str], silent: list[tuple[str, str]]) -> list[_Device]:
        """Devices known from before whose card does not answer now, and a stand-in for each silent card that was
        never known. Instances of an answering card that are no more were removed on purpose."""
        why = silent[0][1] if silent else "the driver does not list it any more; restart gpuq if it was taken out"
        known = [
            replace(device, handle=None, card_handle=None, problem=why)
            for device in self._devices
            if device.card not in answering and not device.gpu.uuid.startswith(_STAND_IN)
        ]
        unknown = len(silent) - len({device.card for device in known})
        stand_ins = [
            _Device(Gpu(0, f"{_STAND_IN}{number}", "unknown", 0), f"{_STAND_IN}{number}", (after, 99), problem=error)
            for number, (after, error) in enumerate(silent[: max(0, unknown)])
        ]
        return known + stand_ins

    def _devices_of(self, card: Any) -> list[_Device]:
        """The card, or its MIG instances. Raises GpuSilent."""
        uuid = text_of(self._driver.must("nvmlDeviceGetUUID", card))
        address = topology.bus_id(self._driver, card)
        numa = topology.numa_node(self._sysfs, address)
        mode = self._driver.ask("nvmlDeviceGetMigMode", card)
        if mode is None or mode[0] != self._driver.nvml.NVML_DEVICE_MIG_ENABLE:
            nodes = self._nodes.of_card(self._driver, card)
            return [_Device(self._describe(card, uuid, None, numa), uuid, (address, 0), card, card, nodes=nodes)]
        instances: list[_Device] = []
        for place in range(self._driver.ask("nvmlDeviceGetMaxMigDeviceCount", card, default=0)):
            handle = self._driver.ask("nvmlDeviceGetMigDeviceHandleByIndex", card, place)
            if handle is not None:
                own = text_of(self._driver.must("nvmlDeviceGetUUID", handle))
                gpu = self._describe(handle, own, uuid, numa)
                nodes = self._nodes.of_instance(self._driver, card, handle)
                instances.append(_Device(gpu, uuid, (address, place), handle, card, nodes=nodes))
        if instances:
            return instances
        why = "MIG mode is on and there is no instance; make one with `nvidia-smi mig -cgi`"
        return [_Device(self._describe(card, uuid, None, numa), uuid, (address, 0), card, card, why)]

    def _describe(self, handle: Any, uuid: str, parent: str | None, numa: int | None) -> Gpu:
        name = text_of(self._driver.must("nvmlDeviceGetName", handle))
        return Gpu(0, uuid, name, self._memory(handle)[0], parent=parent, numa_node=numa)

    def _memory(self, handle: Any) -> tuple[int, int | None]:
        """MiB that programs may use, and MiB in use. What the driver keeps for itself counts as neither, where
        it says how much that is. A GPU without memory of its own uses the machine's: in use is then unknown."""
        versioned = getattr(self._driver.nvml, "nvmlMemory_v2", None)
        info = self._driver.ask("nvmlDeviceGetMemoryInfo", handle, versioned) if versioned else None
        try:
            info = info or self._driver.must("nvmlDeviceGetMemoryInfo", handle)
        except GpuSilent as error:
            if error.code != NOT_SUPPORTED:
                raise
            return psutil.virtual_memory().total // MIB, None
        return (int(info.total) - int(getattr(info, "reserved", 0))) // MIB, int(info.used) // MIB

    def _connect(self, devices: list[_Device]) -> None:
        """Links and the event watch, again only when the set of cards has changed."""
        whole = {device.gpu.uuid: device for device in devices if device.handle is not None and not device.gpu.parent}
        cards = {device.card: device.card_handle for device in devices if device.handle is not None}
        known = {device.card for device in self._devices if device.handle is not None}
        if self._links.keys() == whole.keys() and known == cards.keys():
            return
        self._xids.register(list(cards.values()))
        self._links = topology.links(
            self._driver,
            {uuid: device.handle for uuid, device in whole.items()},
            {uuid: device.order[0] for uuid, device in whole.items()},
        )

    def _readings(self, now: float) -> list[GpuObservation]:
        if not self._driver.running:
            return [_silent(device, now, str(self._away)) for device in self._devices]
        self._xids.drain()
        return [self._reading(device, now) for device in self._devices]

    def _reading(self, device: _Device, now: float) -> GpuObservation:
        if device.handle is None:
            return _silent(device, now, device.problem or "the driver does not answer for it")
        driver, nvml = self._driver, self._driver.nvml
        try:
            users = occupants(driver, device.handle)
            used = self._memory(device.handle)[1]
            load = driver.ask("nvmlDeviceGetUtilizationRates", device.handle)
            power = None if device.gpu.parent else driver.ask("nvmlDeviceGetPowerUsage", device.handle)
            return GpuObservation(
                uuid=device.gpu.uuid,
                at=now,
                used_mb=sum(user.mem_mb or 0 for user in users or ()) if used is None else used,
                utilisation=None if load is None else load.gpu / 100,
                processes=users,
                problem=device.problem or self._xids.fatal.get(device.card) or self._standing_problem(device),
                temperature_c=driver.ask("nvmlDeviceGetTemperature", device.card_handle, nvml.NVML_TEMPERATURE_GPU),
                power_w=None if power is None else power / 1000,
            )
        except GpuSilent as error:
            if device.gpu.parent:
                # An instance that was removed answers so too: the next call looks again.
                self._next_scan = float("-inf")
            return _silent(device, now, str(error))

    def _standing_problem(self, device: _Device) -> str | None:
        now = self._monotonic()
        checked, problem = self._standing.get(device.card, (float("-inf"), None))
        if now - checked >= HEALTH_EVERY_S:
            problem = standing_problem(self._driver, device.card_handle)
            self._standing[device.card] = (now, problem)
        return problem


def _silent(device: _Device, now: float, why: str) -> GpuObservation:
    return GpuObservation(uuid=device.gpu.uuid, at=now, used_mb=0, processes=None, problem=why)
