from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from gpuq.domain.gpu import GpuProcess

GIB = 1024**3
LOST, UNINITIALIZED, NOT_SUPPORTED, NO_PERMISSION, UNKNOWN = 15, 1, 3, 4, 999


def test_cards_are_listed_in_pci_order_with_what_programs_may_use_of_their_memory(machine: Any) -> None:
    first, second = machine.gpus.inventory()
    assert (first.index, first.uuid, first.model) == (0, "GPU-a", "NVIDIA H100 80GB HBM3")
    assert first.memory_mb == 80 * 1024 - 512
    assert (second.index, second.uuid, second.simulated) == (1, "GPU-b", False)


def test_an_idle_card_is_healthy_and_empty(machine: Any) -> None:
    reading = machine.gpus.observe(12.5)[0]
    assert (reading.uuid, reading.at, reading.used_mb, reading.processes, reading.problem) == (
        "GPU-a", 12.5, 0, (), None
    )  # fmt: skip
    assert (reading.utilisation, reading.temperature_c, reading.power_w) == (0.0, 41, 70.5)


def test_numa_node_comes_from_the_kernel_and_minus_one_is_unknown(machine: Any) -> None:
    for address, node in (("0000:3b:00.0", "1"), ("0000:af:00.0", "-1")):
        folder = machine.sysfs / "bus/pci/devices" / address
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(node + "\n")
    assert [gpu.numa_node for gpu in machine.gpus.inventory()] == [1, None]


@pytest.mark.parametrize(
    ("code", "said"),
    [(12, "no NVIDIA driver is installed"), (9, "not loaded"), (18, "reboot"), (4, "permission"), (999, "nvidia-smi")],
)
def test_without_a_driver_the_inventory_is_empty_and_says_what_to_do(machine: Any, code: int, said: str) -> None:
    machine.nvml.init_error = code
    assert list(machine.gpus.inventory()) == []
    assert list(machine.gpus.observe(1.0)) == []
    assert said in machine.gpus.why_empty()


def test_a_missing_driver_names_the_setting_that_simulates_gpus(machine: Any) -> None:
    machine.nvml.init_error = 12
    assert "GPUQ_GPUS=sim:4" in machine.gpus.why_empty()


def test_a_missing_driver_is_not_asked_again_at_every_reading(machine: Any) -> None:
    machine.nvml.init_error = 12
    for _ in range(10):
        machine.gpus.observe(1.0)
    assert machine.nvml.starts == 1
    machine.nvml.init_error = None
    machine.clock.at += 5
    assert len(machine.gpus.inventory()) == 2


def test_a_driver_without_gpus_says_so(machine_of: Callable[..., Any]) -> None:
    assert "finds no GPU" in machine_of().gpus.why_empty()


def test_processes_are_named_with_user_and_command(machine: Any) -> None:
    machine.cards[0].compute = [(os.getpid(), 3 * GIB)]
    machine.cards[0].used = 3 * GIB
    reading = machine.gpus.observe(1.0)[0]
    (process,) = reading.processes
    assert (process.pid, process.mem_mb, process.user, process.graphics) == (
        os.getpid(), 3072, getpass.getuser(), False
    )  # fmt: skip
    assert "python" in process.command.lower() or "pytest" in process.command
    assert reading.used_mb == 3072


def test_a_process_on_the_graphics_list_only_is_marked(machine: Any) -> None:
    me, parent = os.getpid(), os.getppid()
    machine.cards[0].compute = [(me, GIB)]
    machine.cards[0].graphics = [(me, GIB // 2), (parent, None)]
    found = {process.pid: process for process in machine.gpus.observe(1.0)[0].processes}
    assert (found[me].graphics, found[me].mem_mb) == (False, 1024)
    assert (found[parent].graphics, found[parent].mem_mb) == (True, None)


def test_a_client_of_mps_is_a_process_that_computes(machine: Any) -> None:
    client = SimpleNamespace(pid=os.getpid(), usedGpuMemory=GIB)
    machine.nvml.nvmlDeviceGetMPSComputeRunningProcesses = lambda card: [client] if card is machine.cards[0] else []
    first, second = machine.gpus.observe(1.0)
    assert [(process.pid, process.mem_mb, process.graphics) for process in first.processes] == [
        (os.getpid(), 1024, False)
    ]
    assert second.processes == ()


def test_a_process_that_is_gone_is_left_out(machine: Any) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    machine.cards[0].compute = [(child.pid, GIB)]
    assert machine.gpus.observe(1.0)[0].processes == ()


def test_a_process_that_may_not_be_looked_at_is_still_there(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    def forbidden(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr("gpuq.gpus.occupants.psutil.Process", hidden)
    monkeypatch.setattr("gpuq.linux.os.kill", forbidden)
    machine.cards[0].compute = [(4711, GIB)]
    assert machine.gpus.observe(1.0)[0].processes == (GpuProcess(4711, 1024),)


def test_memory_that_nvml_does_not_know_is_none(machine: Any) -> None:
    machine.cards[0].compute = [(os.getpid(), 2**64 - 1)]
    assert machine.gpus.observe(1.0)[0].processes[0].mem_mb is None


@pytest.mark.parametrize("code", [NO_PERMISSION, NOT_SUPPORTED, UNKNOWN])
def test_a_driver_that_does_not_list_processes_leaves_them_unknown(machine: Any, code: int) -> None:
    machine.cards[0].failing["nvmlDeviceGetComputeRunningProcesses"] = code
    reading = machine.gpus.observe(1.0)[0]
    assert (reading.processes, reading.problem) == (None, None)


def test_a_card_without_graphics_or_readings_is_still_healthy(machine: Any) -> None:
    for name in (
        "nvmlDeviceGetGraphicsRunningProcesses", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTemperature", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRetiredPagesPendingStatus",
        "nvmlDeviceGetRemappedRows", "nvmlDeviceGetFieldValues", "nvmlDeviceGetSupportedEventTypes",
    ):  # fmt: skip
        machine.cards[0].failing[name] = NOT_SUPPORTED
    reading = machine.gpus.observe(1.0)[0]
    assert (reading.problem, reading.processes) == (None, ())
    assert (reading.utilisation, reading.power_w, reading.temperature_c) == (None, None, None)


def test_a_pynvml_without_the_newer_functions_is_enough(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode", "nvmlDeviceGetRemappedRows"):
        monkeypatch.delattr(type(machine.nvml), name)
    monkeypatch.delattr(type(machine.nvml), "nvmlMemory_v2")
    assert machine.gpus.inventory()[0].memory_mb == 80 * 1024
    assert machine.gpus.observe(1.0)[0].problem is None


def test_a_gpu_that_shares_the_machines_memory_counts_what_its_processes_use(machine: Any) -> None:
    machine.cards[0].failing["nvmlDeviceGetMemoryInfo"] = NOT_SUPPORTED
    machine.cards[0].compute = [(os.getpid(), 2 * GIB)]
    assert machine.gpus.inventory()[0].memory_mb == psutil.virtual_memory().total // 2**20
    assert machine.gpus.observe(1.0)[0].used_mb == 2048


@pytest.mark.parametrize("code", [LOST, 16, UNKNOWN])
def test_a_card_that_stops_answering_keeps_its_place_and_says_why(machine: Any, code: int) -> None:
    machine.gpus.inventory()
    machine.cards[0].error = code
    for _ in range(2):
        first, second = machine.gpus.observe(1.0)
        assert (first.uuid, first.processes, first.problem is not None) == ("GPU-a", None, True)
        assert (second.uuid, second.processes, second.problem) == ("GPU-b", (), None)
        machine.clock.at += 61
        assert [(gpu.index, gpu.uuid) for gpu in machine.gpus.inventory()] == [(0, "GPU-a"), (1, "GPU-b")]


def test_a_lost_card_that_comes_back_is_used_again(machine: Any) -> None:
    machine.gpus.inventory()
    machine.cards[0].error = LOST
    machine.clock.at += 61
    assert machine.gpus.observe(1.0)[0].problem
    machine.cards[0].error = None
    machine.clock.at += 61
    assert machine.gpus.observe(2.0)[0].problem is None


def test_a_card_lost_from_the_beginning_is_shown_and_does_not_move_the_others(machine: Any) -> None:
    machine.cards[0].error = LOST
    first, second = machine.gpus.inventory()
    assert (first.index, first.memory_mb) == (0, 0)
    assert (second.index, second.uuid) == (1, "GPU-b")
    assert machine.gpus.observe(1.0)[0].problem
    machine.cards[0].error = None
    machine.clock.at += 61
    assert [gpu.uuid for gpu in machine.gpus.inventory()] == ["GPU-a", "GPU-b"]


def test_a_driver_that_was_reloaded_is_started_again_within_the_same_reading(machine: Any) -> None:
    machine.gpus.inventory()
    machine.nvml.started = False
    assert [reading.problem for reading in machine.gpus.observe(1.0)] == [None, None]
    assert machine.nvml.starts == 2


def test_while_the_driver_is_away_every_gpu_has_a_problem_and_unknown_users(machine: Any) -> None:
    machine.gpus.inventory()
    machine.nvml.started, machine.nvml.init_error = False, 9
    readings = machine.gpus.observe(1.0)
    assert [reading.uuid for reading in readings] == ["GPU-a", "GPU-b"]
    assert all(reading.processes is None and "not loaded" in reading.problem for reading in readings)
    machine.nvml.init_error = None
    machine.clock.at += 5
    assert [reading.problem for reading in machine.gpus.observe(2.0)] == [None, None]


def test_mig_instances_stand_for_their_card(machine_of: Callable[..., Any], card: Any) -> None:
    slices = [card(f"MIG-{n}", "", "NVIDIA A100 MIG 3g.20gb", 20 * GIB, 0) for n in (0, 1)]
    machine = machine_of(card("GPU-a", "0000:01:00.0", mig=slices), card("GPU-b", "0000:02:00.0"))
    found = [(gpu.index, gpu.uuid, gpu.parent, gpu.memory_mb // 1024) for gpu in machine.gpus.inventory()]
    assert found == [(0, "MIG-0", "GPU-a", 20), (1, "MIG-1", "GPU-a", 20), (2, "GPU-b", None, 79)]
    slices[1].compute = [(os.getpid(), GIB)]
    slices[0].failing["nvmlDeviceGetUtilizationRates"] = NOT_SUPPORTED
    first, second, _ = machine.gpus.observe(1.0)
    assert (first.processes, first.utilisation, first.power_w) == ((), None, None)
    assert [process.pid for process in second.processes] == [os.getpid()]


def test_mig_instances_that_were_made_anew_replace_the_old_ones(machine_of: Callable[..., Any], card: Any) -> None:
    whole = card("GPU-a", "0000:01:00.0", mig=[card("MIG-0", "", total=GIB)])
    machine = machine_of(whole)
    machine.gpus.inventory()
    whole.mig[0].error = 2
    assert machine.gpus.observe(1.0)[0].problem
    whole.mig = [card("MIG-7", "", total=GIB), card("MIG-8", "", total=GIB)]
    assert [gpu.uuid for gpu in machine.gpus.inventory()] == ["MIG-7", "MIG-8"]


def test_a_card_in_mig_mode_without_instances_is_shown_as_unusable(machine_of: Callable[..., Any], card: Any) -> None:
    machine = machine_of(card("GPU-a", "0000:01:00.0", mig=[]))
    assert [gpu.uuid for gpu in machine.gpus.inventory()] == ["GPU-a"]
    assert "nvidia-smi mig" in machine.gpus.observe(1.0)[0].problem


def test_links_tell_nvlink_from_switches_and_sockets(machine_of: Callable[..., Any], card: Any) -> None:
    a, b, c = "0000:01:00.0", "0000:02:00.0", "0000:81:00.0"
    machine = machine_of(card("GPU-a", a, nvlinks=[b]), card("GPU-b", b, nvlinks=[a]), card("GPU-c", c))
    machine.nvml.levels = {frozenset((a, c)): 50, frozenset((b, c)): 10}
    links = {gpu.uuid: gpu.links for gpu in machine.gpus.inventory()}
    assert links == {
        "GPU-a": {"GPU-b": 0, "GPU-c": 5},
        "GPU-b": {"GPU-a": 0, "GPU-c": 1},
        "GPU-c": {"GPU-a": 5, "GPU-b": 1},
    }


def test_an_nvswitch_joins_all_its_cards_and_unknown_pairs_are_left_out(
    machine_of: Callable[..., Any], card: Any
) -> None:
    a, b, c = "0000:01:00.0", "0000:02:00.0", "0000:81:00.0"
    machine = machine_of(card("GPU-a", a, nvlinks=["switch"]), card("GPU-b", b, nvlinks=["switch"]), card("GPU-c", c))
    links = {gpu.uuid: gpu.links for gpu in machine.gpus.inventory()}
    assert links == {"GPU-a": {"GPU-b": 0}, "GPU-b": {"GPU-a": 0}, "GPU-c": {}}


def test_two_gpus_on_one_board_share_its_switch_and_one_end_of_a_link_is_enough(
    machine_of: Callable[..., Any], card: Any
) -> None:
    a, b, c = "0000:01:00.0", "0000:02:00.0", "0000:81:00.0"
    machine = machine_of(card("GPU-a", a), card("GPU-b", b), card("GPU-c", c, nvlinks=[a]))
    machine.nvml.levels = {frozenset((a, b)): 0}
    links = {gpu.uuid: gpu.links for gpu in machine.gpus.inventory()}
    assert links == {"GPU-a": {"GPU-b": 1, "GPU-c": 0}, "GPU-b": {"GPU-a": 1}, "GPU-c": {"GPU-a": 0}}


def test_a_driver_whose_count_cannot_be_read_is_away(machine: Any) -> None:
    machine.gpus.inventory()

    def silent() -> int:
        raise machine.nvml.NVMLError(UNKNOWN)

    machine.nvml.nvmlDeviceGetCount = silent
    machine.clock.at += 61
    readings = machine.gpus.observe(1.0)
    assert [reading.uuid for reading in readings] == ["GPU-a", "GPU-b"]
    assert all(reading.processes is None and "does not answer" in reading.problem for reading in readings)


def test_closing_ends_the_driver_session_once(machine: Any, tmp_path: Path) -> None:
    machine.gpus.inventory()
    machine.gpus.close()
    machine.gpus.close()
    assert not machine.nvml.started
    assert machine.nvml.asked.count("nvmlShutdown") == 1
