"""What makes a GPU unusable, from one reading of the driver, the ledger, and what people drained."""

from __future__ import annotations

import pytest

from gpuq.domain.gpu import IDLE_THRESHOLD_MB, Gpu, GpuObservation, GpuProcess, GpuState
from gpuq.domain.reasons import ReasonCode
from gpuq.engine.snapshot.devices import classify_gpu, devices
from gpuq.engine.snapshot.ledger import Ledger
from gpuq.engine.switches import Drained

GPU = Gpu(index=3, uuid="GPU-3", model="NVIDIA H100", memory_mb=80_000)
OURS, BOBS, ANNS = 100, 200, 201
BOB = GpuProcess(BOBS, 9_000, "bob", "/usr/bin/python3 train.py --fast")
LITTLE = GpuProcess(BOBS, 1)
ANN = GpuProcess(ANNS, 5, "ann", "vim")
SICK = "Xid 79: GPU has fallen off the bus"
BY_ROOT = Drained("root", "fan is loud")


def reading(
    used_mb: int = 0, *processes: GpuProcess, hidden: bool = False, problem: str | None = None
) -> GpuObservation:
    return GpuObservation(GPU.uuid, at=1.0, used_mb=used_mb, processes=None if hidden else processes, problem=problem)


def judged(
    seen: GpuObservation | None, *, held: bool = False, drained: Drained | None = None
) -> tuple[GpuState | None, ReasonCode | None, str, list[int]]:
    state, reason, foreign = classify_gpu(GPU, seen, held=held, drained=drained, is_ours=lambda pid: pid == OURS)
    return state, reason and reason.code, reason.text if reason else "", [process.pid for process in foreign]


@pytest.mark.parametrize("held", [False, True], ids=["idle", "held"])
@pytest.mark.parametrize(
    ("seen", "drained", "state", "text", "foreign"),
    [
        (None, None, GpuState.UNHEALTHY, "the driver says nothing of gpu 3", []),
        (reading(problem=SICK), None, GpuState.UNHEALTHY, f"gpu 3: {SICK}", []),
        (reading(hidden=True, problem=SICK), None, GpuState.UNHEALTHY, f"gpu 3: {SICK}", []),
        (reading(9_000, BOB, problem=SICK), None, GpuState.UNHEALTHY, f"gpu 3: {SICK}", [BOBS]),
        (reading(), BY_ROOT, GpuState.DRAINED, "gpu 3 is drained by root: fan is loud", []),
        (reading(), Drained("root", None), GpuState.DRAINED, "gpu 3 is drained by root", []),
        (None, BY_ROOT, GpuState.DRAINED, "gpu 3 is drained by root: fan is loud", []),
        (reading(9_000, BOB, problem=SICK), BY_ROOT, GpuState.DRAINED, "gpu 3 is drained by root: fan is loud", [BOBS]),
    ],
    ids=["silent", "sick", "sick_hidden", "sick_used", "drained", "drained_no_why", "drained_silent", "drained_sick"],
)
def test_a_gpu_out_of_order_is_so_whoever_holds_it(
    seen: GpuObservation | None, held: bool, drained: Drained | None, state: GpuState, text: str, foreign: list[int]
) -> None:
    assert judged(seen, held=held, drained=drained) == (state, ReasonCode.GPU_UNHEALTHY, text, foreign)


@pytest.mark.parametrize("held", [False, True], ids=["idle", "held"])
@pytest.mark.parametrize(
    ("seen", "text", "foreign"),
    [
        (reading(9_000, BOB), "gpu 3 is used by bob's python3, pid 200, outside the queue", [BOBS]),
        (reading(0, LITTLE), "gpu 3 is used by somebody's process, pid 200, outside the queue", [BOBS]),
        (
            reading(9_005, BOB, ANN),
            "gpu 3 is used by bob's python3, pid 200 and 1 more, outside the queue",
            [BOBS, ANNS],
        ),
        (
            reading(7_000, GpuProcess(OURS, 6_900), ANN),
            "gpu 3 is used by ann's vim, pid 201, outside the queue",
            [ANNS],
        ),
    ],
    ids=["large", "small", "two", "beside_ours"],
)
def test_a_foreign_process_uses_a_gpu_however_little_it_takes(
    seen: GpuObservation, held: bool, text: str, foreign: list[int]
) -> None:
    assert judged(seen, held=held) == (GpuState.EXTERNAL, ReasonCode.EXTERNAL_PROCESS, text, foreign)


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (reading(hidden=True), "the driver does not tell who uses gpu 3"),
        (reading(IDLE_THRESHOLD_MB + 1), "601 MiB of gpu 3 are in use by a process that cannot be seen"),
        (reading(9_000, GpuProcess(OURS, 9_000)), "9000 MiB of gpu 3 are in use by a process that cannot be seen"),
    ],
    ids=["processes_unknown", "memory_without_owner", "gone_or_left_over"],
)
def test_what_cannot_be_known_counts_as_use_unless_we_hold_the_gpu(seen: GpuObservation, text: str) -> None:
    assert judged(seen) == (GpuState.EXTERNAL, ReasonCode.EXTERNAL_PROCESS, text, [])
    assert judged(seen, held=True) == (None, None, "", [])


@pytest.mark.parametrize("held", [False, True], ids=["idle", "held"])
@pytest.mark.parametrize("seen", [reading(), reading(IDLE_THRESHOLD_MB), reading(5, GpuProcess(OURS, 5))])
def test_an_idle_gpu_may_have_a_little_memory_in_use(seen: GpuObservation, held: bool) -> None:
    assert judged(seen, held=held) == (None, None, "", [])


@pytest.mark.parametrize(
    ("used_mb", "shares", "beyond"),
    [
        (20_000, [4_000, 6_000], 20_000 - 10_000 - IDLE_THRESHOLD_MB),
        (10_000 + IDLE_THRESHOLD_MB, [4_000, 6_000], 0),
        (3_000, [4_000], 0),
        (20_000, [4_000, None], 0),
        (20_000, [None], 0),
        (20_000, [], 0),
    ],
)
def test_memory_beyond_the_shares_on_a_gpu_is_nobodys(used_mb: int, shares: list[int | None], beyond: int) -> None:
    ledger = Ledger({GPU.uuid: [(job_id, mem_mb) for job_id, mem_mb in enumerate(shares, start=7)]})
    assert ledger.unaccounted_mb(reading(used_mb)) == beyond
    assert ledger.unaccounted_mb(None) == 0
    [device] = devices([GPU], [reading(used_mb)], ledger, {}, lambda pid: False)
    assert device.unaccounted_mb == beyond


def test_the_scheduler_is_shown_each_gpu_with_its_own_facts() -> None:
    other = Gpu(1, "GPU-1", "NVIDIA A100", 40_000, numa_node=1, links={"GPU-3": 2})
    busy = GpuObservation(other.uuid, at=1.0, used_mb=5_000)
    first, second = devices(
        [GPU, other], [busy, reading(5_000)], Ledger({other.uuid: [(7, None)]}), {GPU.uuid: BY_ROOT}, lambda pid: True
    )
    assert (first.uuid, first.index, first.model, first.memory_mb) == ("GPU-3", 3, "NVIDIA H100", 80_000)
    assert (first.numa_node, first.links) == (None, {})
    assert first.unavailable is not None
    assert first.unavailable.code is ReasonCode.GPU_UNHEALTHY
    assert (second.uuid, second.index, second.model, second.memory_mb) == ("GPU-1", 1, "NVIDIA A100", 40_000)
    assert (second.numa_node, second.links, second.unavailable) == (1, {"GPU-3": 2}, None)
