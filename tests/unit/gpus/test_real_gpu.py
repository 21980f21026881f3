"""On a machine with an NVIDIA GPU and driver; skipped with the reason elsewhere."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from gpuq.gpus.nvml import NvmlGpus

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpus() -> Iterator[NvmlGpus]:
    source = NvmlGpus()
    if why := source.why_empty():
        pytest.skip(why)
    yield source
    source.close()


def test_the_inventory_is_what_nvidia_smi_lists(gpus: NvmlGpus) -> None:
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    rows = [line.split(", ") for line in listed.strip().splitlines()]
    whole = [gpu for gpu in gpus.inventory() if gpu.parent is None]
    if len(whole) != len(gpus.inventory()):
        pytest.skip("a card is in MIG mode, so that indices differ")
    assert [(str(gpu.index), gpu.uuid) for gpu in whole] == [(index, uuid) for index, uuid, _ in rows]
    for gpu, (_, _, total) in zip(whole, rows, strict=True):
        # What the driver keeps for itself is not counted.
        assert 0.9 * int(total) <= gpu.memory_mb <= int(total)


def test_every_gpu_gives_a_whole_reading(gpus: NvmlGpus) -> None:
    inventory = gpus.inventory()
    readings = gpus.observe(5.0)
    assert [reading.uuid for reading in readings] == [gpu.uuid for gpu in inventory]
    for gpu, reading in zip(inventory, readings, strict=True):
        assert reading.problem is None
        assert 0 <= reading.used_mb <= gpu.memory_mb
        assert reading.processes is not None
        assert reading.at == 5.0


def test_a_program_on_the_gpu_is_seen_with_its_user(gpus: NvmlGpus) -> None:
    torch = pytest.importorskip("torch", reason="needs torch to put something on the GPU")
    block = torch.zeros(256 * 2**20, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    reading = gpus.observe(1.0)[0]
    assert reading.used_mb >= 256
    # In a container the driver may not list the processes at all; memory in use then speaks for itself.
    if reading.processes:
        mine = [process for process in reading.processes if process.pid == os.getpid()]
        assert mine
        assert mine[0].user
    assert block.numel() == 256 * 2**20


def test_a_reading_is_quick_enough_to_be_taken_often(gpus: NvmlGpus) -> None:
    gpus.observe(1.0)
    began = time.perf_counter()
    for _ in range(10):
        gpus.observe(1.0)
    assert (time.perf_counter() - began) / 10 < 0.05 * len(gpus.inventory())
