"""Whether a GPU is fit for work: what the driver keeps count of, and the fatal Xid events it sends."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from gpuq.gpus.driver import TIMEOUT, Driver, DriverGone, GpuSilent, text_of

_log = logging.getLogger(__name__)

# Xids after which NVIDIA asks for a reset of the GPU, a restart of the machine or a check of the hardware before
# more work is put on it: "Analyzing Xid Errors with the Xid Catalog", immediate actions RESET_GPU, RESTART_BM,
# CHECK_MECHANICALS, WORKFLOW_XID_48 and WORKFLOW_NVLINK_ERR,
# https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
# Left out: 155, which is also sent for links that were put to sleep on purpose. Others (13, 31, 43, 45, 94, …) end
# the program that caused them and leave the GPU fit.
FATAL_XIDS: dict[int, str] = {
    46: "GPU stopped processing",
    48: "uncorrectable memory error",
    54: "auxiliary power is not connected",
    62: "internal micro-controller halt",
    64: "memory remapping failure",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    95: "uncontained memory error",
    109: "context switch timeout",
    110: "security fault",
    119: "GPU system processor does not answer",
    120: "GPU system processor error",
    136: "NVLink training failed",
    140: "unrecovered memory error",
    143: "GPU initialisation error",
    156: "a hardware resource was retired",
    158: "GPU fatal timeout",
}

# nvmlDeviceGpuRecoveryAction_t, read through field 230 (NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, drivers from R570).
_RECOVERY_FIELD = 230
_RECOVERY = {
    1: "reset the GPU",
    2: "reboot the machine",
    3: "drain its peer-to-peer traffic",
    4: "drain it and reset the GPU",
    6: "reset its PCIe bus",
    7: "reboot the machine",
}
_MAX_EVENTS = 64


def standing_problem(driver: Driver, card: Any) -> str | None:
    """What the driver keeps on record against this card: None, or a sentence. Raises DriverGone, GpuSilent."""
    nvml = driver.nvml
    uncorrected = driver.ask(
        "nvmlDeviceGetTotalEccErrors",
        card,
        nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        nvml.NVML_VOLATILE_ECC,
        default=0,
    )
    if uncorrected:
        return f"{uncorrected} uncorrectable memory errors since the driver was loaded; reset the GPU"
    if driver.ask("nvmlDeviceGetRetiredPagesPendingStatus", card, default=0):
        return "memory pages wait to be retired; reset the GPU"
    rows = driver.ask("nvmlDeviceGetRemappedRows", card)
    if rows is not None and rows[3]:
        return "a broken memory row could not be remapped; replace the GPU"
    action = _recovery_action(driver, card)
    if action:
        return f"the driver asks: {_RECOVERY.get(action, f'recovery action {action}')}"
    return None


def _recovery_action(driver: Driver, card: Any) -> int:
    values = driver.ask("nvmlDeviceGetFieldValues", card, [_RECOVERY_FIELD], default=())
    for value in values:
        # 5 concerns the fabric between machines, not this one.
        if value.nvmlReturn == 0 and value.value.uiVal != 5:
            return int(value.value.uiVal)
    return 0


class XidWatch:
    """Collects fatal Xids of all cards without ever waiting. `fatal`: card UUID → sentence.

    An Xid is remembered until the driver is reloaded or gpuq is restarted: no event says that a GPU was reset.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._set: Any = None
        self._said: set[int] = set()
        self.fatal: dict[str, str] = {}

    def register(self, cards: list[Any]) -> None:
        """Watches these cards and no others. Those whose driver sends no such events are passed over (virtual
        GPUs, some GeForce). Raises DriverGone."""
        self.close()
        wanted = self._driver.nvml.nvmlEventTypeXidCriticalError
        self._set = self._driver.ask("nvmlEventSetCreate")
        if self._set is None:
            return
        for card in cards:
            try:
                if self._driver.ask("nvmlDeviceGetSupportedEventTypes", card, default=0) & wanted:
                    self._driver.ask("nvmlDeviceRegisterEvents", card, wanted, self._set)
            except GpuSilent as error:
                _log.warning("a GPU does not answer, its events are not watched: %s", error)

    def drain(self) -> None:
        """Takes in every event that has arrived. Raises DriverGone."""
        if self._set is None:
            return
        nvml = self._driver.nvml
        for _ in range(_MAX_EVENTS):
            try:
                event = nvml.nvmlEventSetWait_v2(self._set, 0)
            except nvml.NVMLError as error:
                if error.value != TIMEOUT and error.value not in self._said:
                    # Said once; the other checks of a reading go on without events.
                    self._said.add(error.value)
                    _log.warning("the driver's event queue answers: %s", error)
                return
            if event.eventType & nvml.nvmlEventTypeXidCriticalError:
                self._note(int(event.eventData), event.device)

    def _note(self, xid: int, card: Any) -> None:
        try:
            uuid = text_of(self._driver.must("nvmlDeviceGetUUID", card))
        except GpuSilent as error:
            # Its next reading fails in the same way and says so.
            _log.warning("Xid %d on a GPU that does not answer: %s", xid, error)
            return
        if xid not in FATAL_XIDS:
            _log.warning("GPU %s: Xid %d, not fatal to the GPU", uuid, xid)
            return
        sentence = f"Xid {xid}: {FATAL_XIDS[xid]}; reset the GPU or reboot, then restart gpuq"
        _log.error("GPU %s: %s", uuid, sentence)
        self.fatal.setdefault(uuid, sentence)

    def close(self) -> None:
        """Frees the driver's event set; a driver that is gone has freed it already."""
        if self._set is not None and self._driver.running:
            # A driver or card that is gone has freed it.
            with contextlib.suppress(DriverGone, GpuSilent):
                self._driver.ask("nvmlEventSetFree", self._set)
        self._set = None
