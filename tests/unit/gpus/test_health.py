from __future__ import annotations

from typing import Any

import pytest

LOST = 15


def problems(machine: Any) -> list[str | None]:
    return [reading.problem for reading in machine.gpus.observe(1.0)]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"ecc": 3}, "3 uncorrectable memory errors"),
        ({"pages_pending": 1}, "pages wait"),
        ({"rows": (0, 1, 0, 1)}, "could not be remapped"),
        ({"recovery": 1}, "reset the GPU"),
        ({"recovery": 2}, "reboot the machine"),
    ],
)
def test_what_the_driver_keeps_on_record_makes_one_card_unhealthy(
    machine: Any, record: dict[str, Any], said: str
) -> None:
    for name, value in record.items():
        setattr(machine.cards[0], name, value)
    first, second = problems(machine)
    assert first is not None
    assert said in first
    assert second is None


def test_rows_that_were_remapped_well_are_no_problem(machine: Any) -> None:
    machine.cards[0].rows = (5, 2, 0, 0)
    assert problems(machine) == [None, None]


def test_error_counters_are_not_read_at_every_observation(machine: Any) -> None:
    for _ in range(5):
        machine.gpus.observe(1.0)
    assert machine.nvml.asked.count("nvmlDeviceGetTotalEccErrors") == 2
    machine.cards[1].ecc = 1
    machine.clock.at += 15
    assert problems(machine)[1] is not None


@pytest.mark.parametrize("xid", [48, 79, 95, 119])
def test_a_fatal_xid_makes_its_card_unhealthy_for_good(machine: Any, xid: int) -> None:
    machine.gpus.inventory()
    machine.nvml.send_xid(machine.cards[1], xid)
    for _ in range(2):
        first, second = problems(machine)
        assert first is None
        assert second is not None
        assert f"Xid {xid}" in second
        machine.clock.at += 100


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 94])
def test_an_xid_that_a_program_caused_leaves_its_card_fit(machine: Any, xid: int) -> None:
    machine.gpus.inventory()
    machine.nvml.send_xid(machine.cards[0], xid)
    assert problems(machine) == [None, None]
    assert machine.nvml.events == []


def test_events_of_other_kinds_are_no_xids(machine: Any) -> None:
    machine.gpus.inventory()
    machine.nvml.send_xid(machine.cards[0], 79)
    machine.nvml.events[0].eventType = 1
    assert problems(machine) == [None, None]


def test_an_xid_of_a_card_that_no_longer_answers_does_not_end_the_reading(machine: Any) -> None:
    machine.gpus.inventory()
    machine.cards[0].error = LOST
    machine.nvml.send_xid(machine.cards[0], 79)
    first, second = problems(machine)
    assert first is not None
    assert second is None


def test_all_instances_of_a_card_share_its_fate(machine_of: Any, card: Any) -> None:
    slices = [card("MIG-0", ""), card("MIG-1", "")]
    machine = machine_of(card("GPU-a", "0000:01:00.0", mig=slices), card("GPU-b", "0000:02:00.0"))
    machine.gpus.inventory()
    machine.nvml.send_xid(machine.cards[0], 95)
    first, second, third = problems(machine)
    assert first is not None
    assert first == second
    assert third is None


def test_a_reloaded_driver_has_a_clean_slate_and_watches_again(machine: Any) -> None:
    machine.gpus.inventory()
    machine.nvml.send_xid(machine.cards[0], 79)
    assert problems(machine)[0] is not None
    machine.nvml.started = False
    assert problems(machine) == [None, None]
    machine.nvml.send_xid(machine.cards[0], 79)
    assert problems(machine)[0] is not None


def test_a_broken_event_queue_does_not_stop_the_readings(machine: Any) -> None:
    def broken(event_set: object, timeout_ms: int) -> None:
        raise machine.nvml.NVMLError(999)

    machine.nvml.nvmlEventSetWait_v2 = broken
    assert problems(machine) == [None, None]


def test_an_action_of_the_fabric_is_not_the_cards_and_an_unknown_one_is(machine: Any) -> None:
    machine.cards[0].recovery, machine.cards[1].recovery = 5, 99
    first, second = problems(machine)
    assert (first, second) == (None, "the driver asks: recovery action 99")


def test_all_events_that_have_arrived_are_taken_in_and_the_first_fatal_one_is_told(machine: Any) -> None:
    machine.gpus.inventory()
    for xid in (13, 79, 48):
        machine.nvml.send_xid(machine.cards[0], xid)
    machine.nvml.send_xid(machine.cards[1], 95)
    first, second = problems(machine)
    assert (machine.nvml.events, str(first)[:7], str(second)[:7]) == ([], "Xid 79:", "Xid 95:")


def test_a_card_that_is_lost_while_its_events_are_asked_for_costs_the_others_nothing(machine: Any) -> None:
    machine.cards[0].failing["nvmlDeviceGetSupportedEventTypes"] = LOST
    assert problems(machine) == [None, None]
    machine.nvml.send_xid(machine.cards[1], 79)
    assert problems(machine)[1] is not None


def test_an_event_queue_that_is_broken_is_told_of_once(machine: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(event_set: object, timeout_ms: int) -> None:
        raise machine.nvml.NVMLError(999)

    machine.nvml.nvmlEventSetWait_v2 = broken
    for _ in range(3):
        problems(machine)
    assert len([record for record in caplog.records if "event queue" in record.getMessage()]) == 1
