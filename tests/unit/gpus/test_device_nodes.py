"""Which device nodes a job has no business with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

MIG_MINORS = """config 1
monitor 2
gpu4/gi3/access 30
gpu4/gi3/ci0/access 31
gpu4/gi3/ci1/access 32
gpu4/gi5/access 48
gpu4/gi5/ci0/access 49
gpu5/gi3/access 300
gpu5/gi3/ci0/access 301
"""


def make_nodes(machine: Any, *names: str) -> None:
    for name in names:
        path = machine.sysfs / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def hidden(machine: Any, *uuids: str) -> list[str]:
    machine.gpus.inventory()
    folder = machine.sysfs / "dev"
    return [node.removeprefix(f"{folder}/") for node in machine.gpus.hidden_from(uuids)]


def test_the_nodes_of_other_cards_are_hidden_by_minor_number_and_what_all_share_is_not(
    machine_of: Callable[..., Any], card: Any
) -> None:
    machine = machine_of(card("GPU-a", "0000:3b:00.0", minor=4), card("GPU-b", "0000:af:00.0", minor=0))
    make_nodes(machine, "nvidia0", "nvidia4", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "null", "nvidia4x")
    assert hidden(machine, "GPU-a") == ["nvidia0"]
    assert hidden(machine, "GPU-b") == ["nvidia4"]
    assert hidden(machine, "GPU-a", "GPU-b") == []
    assert hidden(machine) == ["nvidia0", "nvidia4"]


def test_a_card_that_the_driver_does_not_list_is_hidden_from_everybody(machine: Any) -> None:
    make_nodes(machine, "nvidia0", "nvidia9")
    assert hidden(machine, "GPU-a") == ["nvidia9"]


def test_a_job_on_an_instance_has_its_card_and_its_own_two_capabilities(
    machine_of: Callable[..., Any], card: Any
) -> None:
    slices = [card("MIG-1", "", minor=4, instance=(3, 0)), card("MIG-2", "", minor=4, instance=(5, 0))]
    machine = machine_of(card("GPU-a", "0000:3b:00.0", minor=4, mig=slices), card("GPU-b", "0000:af:00.0", minor=5))
    capabilities = (1, 2, 30, 31, 32, 48, 49, 300, 301)
    make_nodes(machine, "nvidia4", "nvidia5", *(f"nvidia-caps/nvidia-cap{number}" for number in capabilities))
    minors = machine.sysfs / "proc/driver/nvidia-caps/mig-minors"
    minors.parent.mkdir(parents=True)
    minors.write_text(MIG_MINORS)

    def numbers(*uuids: str) -> set[str]:
        return {name.removeprefix("nvidia-caps/nvidia-cap") for name in hidden(machine, *uuids)}

    everything = {"nvidia4", "nvidia5", *map(str, capabilities)}
    assert numbers("MIG-1") == everything - {"nvidia4", "30", "31"}
    assert numbers("MIG-2") == everything - {"nvidia4", "48", "49"}
    assert numbers("GPU-b") == everything - {"nvidia5"}


def test_a_job_keeps_its_gpu_where_the_driver_tells_no_minor_number(
    machine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make_nodes(machine, "nvidia0", "nvidia1")
    machine.cards[0].failing["nvmlDeviceGetMinorNumber"] = 3
    assert hidden(machine, "GPU-a") == []
    assert "does not tell the device node" in caplog.text
    assert hidden(machine, "GPU-b") == ["nvidia1"]


def test_without_nodes_there_is_nothing_to_hide(machine: Any) -> None:
    assert hidden(machine) == []
