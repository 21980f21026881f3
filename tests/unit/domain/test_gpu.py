"""One predicate says which GPUs a job may have: at its submission, in the plan, and when it asks for more memory."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.gpu import Gpu, GpuObservation, GpuProcess, suits


@pytest.mark.parametrize(
    ("asked", "fits"),
    [({}, True), ({"wanted_model": "a100"}, True), ({"wanted_model": "H100"}, False), ({"ids": (1, 3)}, True),
     ({"ids": (0,)}, False), ({"ids": ()}, False), ({"mem_mb": 81920}, True), ({"mem_mb": 81921}, False),
     ({"ids": (3,), "wanted_model": "A100", "mem_mb": 1}, True)],
)  # fmt: skip
def test_a_gpu_suits_by_index_any_part_of_its_model_and_memory(asked: dict[str, Any], fits: bool) -> None:
    wanted = {"ids": None, "wanted_model": None, "mem_mb": None, **asked}
    assert suits(3, "NVIDIA A100-SXM4-80GB", 81920, **wanted) is fits


def test_a_gpu_is_real_and_known_by_its_uuid_alone_unless_it_is_said_to_be_more() -> None:
    gpu = Gpu(index=0, uuid="GPU-1", model="A100", memory_mb=80_000)
    assert (gpu.simulated, gpu.parent, gpu.numa_node, gpu.links) == (False, None, None, {})
    seen = GpuObservation(uuid="GPU-1", at=5.0, used_mb=0)
    assert (seen.processes, seen.problem, seen.utilisation) == ((), None, None)
    assert GpuProcess(7).graphics is False
