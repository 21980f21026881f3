"""Two daemons on the same GPUs: the second is refused before it has started anything. The GPUs are played."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

UP = """
import dataclasses, sys
from gpuq import wiring
from gpuq.gpus.exclusive import ExclusiveGpus
from gpuq.gpus.simulated import SimulatedGpus
class Played(SimulatedGpus):
    def inventory(self):
        return [dataclasses.replace(gpu, uuid=f"GPU-{sys.argv[1]}-{gpu.index}") for gpu in super().inventory()]
    def observe(self, now):
        named = zip(super().observe(now), self.inventory())
        return [dataclasses.replace(one, uuid=gpu.uuid) for one, gpu in named]
wiring.open_gpus = lambda settings: ExclusiveGpus(Played("sim:2", None), str(settings.home))
from gpuq.server.__main__ import main
sys.exit(main(["up", "-d"]))
"""


def test_a_second_daemon_on_the_same_gpus_is_refused_until_the_first_is_down(make_box: Callable[..., Any]) -> None:
    first, second = make_box(), make_box()

    def up(box: Any) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", UP, f"{os.getpid()}"]
        return subprocess.run(words, env=box.env, capture_output=True, text=True, timeout=60, check=False)

    begun = up(first)
    assert begun.returncode == 0, begun.stderr
    refused = up(second)
    assert refused.returncode == 4
    assert f"pid {first.daemon().pid} of " in refused.stderr
    assert f"home {first.home}" in refused.stderr
    assert "hint: " in refused.stderr
    assert not (second.home / "redis").exists()
    first.down()
    again = up(second)
    assert again.returncode == 0, again.stderr
