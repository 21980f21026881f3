"""Through which device nodes a GPU is used.

A card is `/dev/nvidiaN`, N its minor number. Who uses a MIG instance opens the node of its card, and the capabilities
of its GPU instance and its compute instance in `/dev/nvidia-caps`; `/proc/driver/nvidia-caps/mig-minors` says which
those are. What all share (`/dev/nvidiactl`, `/dev/nvidia-uvm` and the like) opens no GPU by itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gpuq.gpus.driver import Driver

_CARD = re.compile(r"nvidia\d+")
_CAPABILITY = re.compile(r"nvidia-cap\d+")


class NvidiaNodes:
    """`dev` and `proc` are where these are mounted."""

    def __init__(self, dev: Path, proc: Path) -> None:
        self._dev = dev
        self._caps = dev / "nvidia-caps"
        self._minors = proc / "driver/nvidia-caps/mig-minors"

    def there(self) -> list[str]:
        """Every node of any card or instance, known to the driver or not."""
        return _matching(self._dev, _CARD) + _matching(self._caps, _CAPABILITY)

    def of_card(self, driver: Driver, card: Any) -> tuple[str, ...]:
        """Empty when the driver does not tell the minor number. Raises GpuSilent, DriverGone."""
        minor = driver.ask("nvmlDeviceGetMinorNumber", card)
        return () if minor is None else (str(self._dev / f"nvidia{minor}"),)

    def of_instance(self, driver: Driver, card: Any, instance: Any) -> tuple[str, ...]:
        """Those of its card, and its own two capabilities. Raises GpuSilent, DriverGone."""
        minor = driver.ask("nvmlDeviceGetMinorNumber", card)
        gi = driver.ask("nvmlDeviceGetGpuInstanceId", instance)
        ci = driver.ask("nvmlDeviceGetComputeInstanceId", instance)
        named = {f"gpu{minor}/gi{gi}/access", f"gpu{minor}/gi{gi}/ci{ci}/access"}
        return self.of_card(driver, card) + tuple(
            str(self._caps / f"nvidia-cap{number}") for number in self._capabilities(named)
        )

    def _capabilities(self, named: Collection[str]) -> list[str]:
        try:
            lines = [line.split() for line in self._minors.read_text().splitlines()]
        except OSError:
            return []
        return [line[1] for line in lines if len(line) == 2 and line[0] in named]


def _matching(folder: Path, name: re.Pattern[str]) -> list[str]:
    try:
        return sorted(str(path) for path in folder.iterdir() if name.fullmatch(path.name))
    except OSError:
        return []
