from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpuq.domain.gpu import GpuProcess
from gpuq.errors import ConfigError, UsageError
from gpuq.gpus.simulated import SimulatedGpus


@pytest.mark.parametrize(
    ("spec", "count", "memory_mb"),
    [("sim:4", 4, 24576), ("sim:4x24G", 4, 24576), ("sim:2x8000M", 2, 8000), ("sim:1x500", 1, 500)],
)
def test_the_spec_says_how_many_gpus_and_how_large(spec: str, count: int, memory_mb: int) -> None:
    gpus = SimulatedGpus(spec).inventory()
    assert [gpu.index for gpu in gpus] == list(range(count))
    assert {gpu.memory_mb for gpu in gpus} == {memory_mb}
    assert all(gpu.simulated for gpu in gpus)


@pytest.mark.parametrize("spec", ["sim:", "sim:-1", "sim:4x", "sim:4x0M", "nvml", "sim:4x24T"])
def test_a_spec_that_makes_no_sense_is_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        SimulatedGpus(spec)


def test_uuids_are_the_same_in_every_run_and_never_shared() -> None:
    first = [gpu.uuid for gpu in SimulatedGpus("sim:12").inventory()]
    assert first == [gpu.uuid for gpu in SimulatedGpus("sim:12x8G").inventory()]
    assert len(set(first)) == 12
    assert all(uuid.startswith("SIM-") for uuid in first)


def test_without_a_state_file_everything_is_free_and_healthy(tmp_path: Path) -> None:
    for source in (SimulatedGpus("sim:2"), SimulatedGpus("sim:2", tmp_path / "sim-gpus.json")):
        for reading in source.observe(3.0):
            assert (reading.at, reading.used_mb, reading.processes, reading.problem) == (3.0, 0, (), None)


def write(path: Path, state: object) -> None:
    """With a new inode, as an editor would, so that a change within one clock tick is seen."""
    path.with_suffix(".new").write_text(state if isinstance(state, str) else json.dumps(state))
    os.replace(path.with_suffix(".new"), path)


def test_foreign_processes_and_problems_come_and_go_with_the_state_file(tmp_path: Path) -> None:
    state = tmp_path / "sim-gpus.json"
    source = SimulatedGpus("sim:3", state)
    write(state, {
        "0": {"processes": [{"pid": 311, "mem_mb": 9000, "user": "alice", "command": "python"}]},
        "1": {"problem": "Xid 79", "used_mb": 700},
        "2": {"processes": None},
    })  # fmt: skip
    first, second, third = source.observe(1.0)
    assert (first.used_mb, first.processes) == (9000, (GpuProcess(311, 9000, "alice", "python"),))
    assert (second.used_mb, second.problem, second.processes) == (700, "Xid 79", ())
    assert (third.processes, third.problem) == (None, None)
    write(state, {"0": {"used_mb": 5}})
    assert [reading.used_mb for reading in source.observe(2.0)] == [5, 0, 0]
    state.unlink()
    assert all(reading.processes == () and reading.used_mb == 0 for reading in source.observe(3.0))


@pytest.mark.parametrize(
    "state",
    [
        "{",
        "[]",
        {"9": {}},
        {"x": {}},
        {"0": {"colour": 1}},
        {"0": {"processes": [{"mem_mb": 3}]}},
        {"0": None},
        {"0": {"device_nodes": "/dev/x"}},
    ],
)
def test_a_state_file_that_cannot_be_understood_frees_nothing(tmp_path: Path, state: object) -> None:
    source = SimulatedGpus("sim:2", tmp_path / "sim-gpus.json")
    write(tmp_path / "sim-gpus.json", state)
    assert all("sim-gpus.json" in str(reading.problem) for reading in source.observe(1.0))
    write(tmp_path / "sim-gpus.json", {})
    assert all(reading.problem is None for reading in source.observe(2.0))


def test_the_nodes_of_all_other_gpus_are_hidden_and_not_those_that_are_shared(tmp_path: Path) -> None:
    state = tmp_path / "sim-gpus.json"
    source = SimulatedGpus("sim:3", state)
    first, second, third = (gpu.uuid for gpu in source.inventory())
    assert source.hidden_from([first]) == []
    write(state, {"0": {"device_nodes": ["/d/a", "/d/all"]}, "1": {"device_nodes": ["/d/b", "/d/all"]}})
    assert source.hidden_from([first]) == ["/d/b"]
    assert source.hidden_from([first, second]) == []
    assert source.hidden_from([third]) == ["/d/a", "/d/all", "/d/b"]
    assert source.hidden_from([]) == ["/d/a", "/d/all", "/d/b"]


def test_no_gpus_at_all_is_explained() -> None:
    assert SimulatedGpus("sim:1").why_empty() is None
    assert "sim:4" in str(SimulatedGpus("sim:0").why_empty())


def test_bad_specs_are_config_errors_with_a_hint() -> None:
    with pytest.raises(ConfigError) as caught:
        SimulatedGpus("gpu:3")
    assert caught.value.hint
