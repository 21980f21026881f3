"""Questions to the NVIDIA driver, with its many ways of not answering sorted into three.

What this GPU, driver or permission does not give is a default; a GPU that has stopped answering raises
`GpuSilent`; a driver that went away under us raises `DriverGone`. Neither leaves this package.
"""

from __future__ import annotations

from typing import Any

# Numbers of nvmlReturn_t, from nvml.h; they are part of the driver's stable interface.
UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18

_GONE = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, VERSION_MISMATCH})
_LOST = frozenset({GPU_IS_LOST, RESET_REQUIRED})
_SIMULATE = "to try gpuq on simulated GPUs set GPUQ_GPUS=sim:4"
_WHY = {
    LIBRARY_NOT_FOUND: f"no NVIDIA driver is installed (libnvidia-ml.so.1 not found); install it, or {_SIMULATE}",
    DRIVER_NOT_LOADED: f"the NVIDIA driver is installed but not loaded; try `modprobe nvidia`, or {_SIMULATE}",
    VERSION_MISMATCH: "the NVIDIA driver was updated and the old one is still loaded; reboot, or reload the driver",
    NO_PERMISSION: "no permission to talk to the NVIDIA driver; check who may open /dev/nvidiactl",
}


class DriverGone(Exception):
    """The driver was unloaded, reloaded or never there."""


class GpuSilent(Exception):
    """This GPU does not answer; the text is for people, `code` is the nvmlReturn_t."""

    def __init__(self, error: Any, function: str) -> None:
        super().__init__(f"{error} ({function})")
        self.code = int(error.value)


class Driver:
    """`nvml` is the pynvml module, or something with its functions."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.running = False

    def start(self) -> str | None:
        """None when the driver answers, else a sentence that says why it does not and what to do."""
        try:
            self.nvml.nvmlInit()
        except self.nvml.NVMLError as error:
            self.running = False
            return (
                _WHY.get(error.value) or f"the NVIDIA driver does not answer: {error}; see `nvidia-smi`, or {_SIMULATE}"
            )
        self.running = True
        return None

    def stop(self) -> None:
        """Shuts NVML down; does nothing when it is not running or the driver is gone."""
        if not self.running:
            return
        self.running = False
        try:
            self.nvml.nvmlShutdown()
        except self.nvml.NVMLError as error:
            if error.value not in _GONE:
                raise

    def must(self, name: str, *arguments: Any) -> Any:
        """Calls one NVML function that every GPU answers. Raises DriverGone or GpuSilent."""
        try:
            return getattr(self.nvml, name)(*arguments)
        except self.nvml.NVMLError as error:
            if error.value in _GONE:
                raise DriverGone(str(error)) from error
            raise GpuSilent(error, name) from error

    def ask(self, name: str, *arguments: Any, default: Any = None) -> Any:
        """The same for what a GPU, driver or pynvml may not know, support or permit: then `default`.

        A lost GPU still raises GpuSilent: its answer to one question is its answer to all.
        """
        function = getattr(self.nvml, name, None)
        if function is None:
            return default
        try:
            return function(*arguments)
        except self.nvml.NVMLError as error:
            if error.value in _GONE:
                raise DriverGone(str(error)) from error
            if error.value in _LOST:
                raise GpuSilent(error, name) from error
            return default
        except getattr(self.nvml, "NVMLLibraryMismatchError", ()):
            # pynvml is newer than the driver's library, and the function has no older form.
            return default


def text_of(value: str | bytes) -> str:
    """Older pynvml answers bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
