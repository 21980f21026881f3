"""Room on the GPUs, against the plainest way to work it out."""

from __future__ import annotations

from itertools import combinations
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.scheduler.fit import Machine, Room, expected_end
from gpuq.scheduler.order import Shape
from gpuq.scheduler.placement import closest, distances, positions
from gpuq.scheduler.snapshot import Device

DOWN = Reason(ReasonCode.GPU_UNHEALTHY, "gpu is down")
TIMES = [0.0, 10.0, 20.0, 30.0]


def mask_of(places: Any) -> int:
    return sum(1 << at for at in places)


@given(st.sets(st.integers(0, 70)))
def test_a_mask_is_read_from_its_lowest_position(places: set[int]) -> None:
    assert list(positions(mask_of(places))) == sorted(places)


@pytest.mark.parametrize(
    ("expected", "now", "end"),
    [
        (100.0, 50.0, 110.0), (100.0, 109.9, 110.0), (100.0, 110.0, 210.0), (100.0, 209.9, 210.0),
        (100.0, 210.0, 410.0),
        (0.0, 10.0, 11.0), (0.0, 11.0, 12.0), (0.5, 10.0, 11.0), (100.0, 0.0, 110.0),
    ],
)  # fmt: skip
def test_an_expectation_doubles_when_it_has_passed(build: Any, expected: float, now: float, end: float) -> None:
    holding = build.held(1, 0, until=expected, started_at=10.0)
    assert expected_end(holding, now) == end
    assert expected_end(build.held(1, 0, until=expected, stopping=True), now) == now


@st.composite
def machines(draw: Any) -> list[Device]:
    return [
        Device(
            uuid=f"gpu{at}",
            index=at,
            memory_mb=draw(st.sampled_from([10, 20])),
            model=draw(st.sampled_from(["A", "B"])),
            unavailable=draw(st.sampled_from([None, None, DOWN])),
            unaccounted_mb=draw(st.sampled_from([0, 5])),
            node=draw(st.integers(0, 1)),
        )
        for at in range(draw(st.integers(1, 4)))
    ]


@st.composite
def rooms(draw: Any) -> Room:
    """Some GPUs with one exclusive holder, some with shares that fit the memory."""
    room = Room(Machine(draw(machines())))
    for at, device in enumerate(room.machine.devices):
        kind = draw(st.sampled_from(["free", "alone", "shared", "shared"]))
        if kind == "alone":
            room.hold(at, draw(st.sampled_from(TIMES)), None)
        left = device.memory_mb
        while kind == "shared" and left > 0 and draw(st.booleans()):
            mem = draw(st.integers(1, min(left, 8)))
            room.hold(at, draw(st.sampled_from(TIMES)), mem)
            left -= mem
    return room


SHAPES = st.builds(
    Shape,
    st.integers(1, 3),
    mem_mb=st.sampled_from([None, None, 1, 5, 10, 15, 20]),
    model=st.sampled_from([None, None, "a"]),
    ids=st.sampled_from([None, None, (0, 1), (1, 2, 3)]),
)


def right(device: Device, shape: Shape) -> bool:
    return (
        (shape.model is None or shape.model in device.model.lower())
        and (shape.ids is None or device.index in shape.ids)
        and (shape.mem_mb is None or device.memory_mb >= shape.mem_mb)
    )


def has_room(room: Room, at: int, shape: Shape, *, then: float | None = None) -> bool:
    """Now, or at a later time when all that end by then are gone (and nothing outside the queue is known of)."""
    device = room.machine.devices[at]
    if device.unavailable is not None or not right(device, shape):
        return False
    left = [(until, mem) for until, mem in room.holders[at] if then is None or until > then]
    if not left:
        return then is not None or not room.holders[at]
    if shape.mem_mb is None or any(mem is None for _, mem in left):
        return False
    unknown = device.unaccounted_mb if then is None else 0
    return sum(mem or 0 for _, mem in left) + unknown + shape.mem_mb <= device.memory_mb


def nodes(room: Room) -> list[list[int]]:
    devices = room.machine.devices
    return [[at for at, d in enumerate(devices) if d.node == node] for node in sorted({d.node for d in devices})]


@given(rooms(), SHAPES)
def test_what_fits_now_is_what_is_free_or_has_memory_to_spare(room: Room, shape: Shape) -> None:
    fitting = {at for at in range(len(room.holders)) if has_room(room, at, shape)}
    assert room.fitting(shape) == mask_of(fitting)
    somewhere = any(len(fitting & set(node)) >= shape.gpus for node in nodes(room))
    assert room.fits(shape) is somewhere
    assert (room.choose(shape) is not None) is somewhere


@given(rooms(), SHAPES)
def test_possible_is_what_fits_an_idle_machine(room: Room, shape: Shape) -> None:
    devices, machine = room.machine.devices, room.machine
    allowed = {at for at, device in enumerate(devices) if right(device, shape)}
    usable = {at for at, device in enumerate(devices) if device.unavailable is None}
    assert machine.allowed(shape) == mask_of(allowed)
    assert machine.usable == mask_of(usable)
    assert machine.possible(shape) is any(len(allowed & set(node)) >= shape.gpus for node in nodes(room))
    in_service = any(len(allowed & usable & set(node)) >= shape.gpus for node in nodes(room))
    assert machine.possible(shape, usable=True) is in_service


@given(rooms(), SHAPES)
def test_the_earliest_time_is_the_first_at_which_enough_have_room(room: Room, shape: Shape) -> None:
    wanted = (inf, 0)
    for then in (-inf, *TIMES):
        sets = [{at for at in node if has_room(room, at, shape, then=then)} for node in nodes(room)]
        enough = [found for found in sets if len(found) >= shape.gpus]
        if enough:
            wanted = then, mask_of(enough[0])
            break
    soonest, devices = room.earliest(shape)
    assert soonest == wanted[0]
    assert devices.bit_count() >= (shape.gpus if soonest < inf else 0)
    if len({device.node for device in room.machine.devices}) == 1:
        assert devices == wanted[1]


@given(rooms(), SHAPES, SHAPES, st.sampled_from(TIMES))
def test_a_reservation_still_fits_when_enough_of_its_gpus_have_room_beside_the_newcomer(
    room: Room, shape: Shape, other: Shape, then: float
) -> None:
    taken = room.choose(other) or 0
    before = [list(holders) for holders in room.holders]

    def left(at: int) -> bool:
        if not taken >> at & 1:
            return has_room(room, at, shape, then=then)
        if other.mem_mb is None or shape.mem_mb is None:
            return False
        room.holders[at].append((inf, other.mem_mb))
        found = has_room(room, at, shape, then=then)
        room.holders[at].pop()
        return found

    wanted = any(sum(map(left, node)) >= shape.gpus for node in nodes(room))
    assert room.still_fits(shape, then, taken, other.mem_mb) is wanted
    assert room.holders == before


@given(rooms(), SHAPES, st.integers(0, 15))
def test_a_job_gets_as_few_as_possible_of_the_gpus_that_are_to_be_avoided(room: Room, shape: Shape, avoid: int) -> None:
    chosen = room.choose(shape, avoid)
    if chosen is None:
        return
    fitting = room.fitting(shape)
    assert chosen & ~fitting == 0
    assert chosen.bit_count() == shape.gpus
    assert sum(chosen & mask_of(node) != 0 for node in nodes(room)) == 1
    there = [mask_of(node) & fitting for node in nodes(room)]
    enough = [here for here in there if here.bit_count() >= shape.gpus]
    least = min(max(0, shape.gpus - (here & ~avoid).bit_count()) for here in enough)
    assert (chosen & avoid).bit_count() == least
    # The fullest node of those, and there the shares with the least memory over.
    here = next(here for here in there if here & chosen)
    fullest = min(h.bit_count() for h in enough if max(0, shape.gpus - (h & ~avoid).bit_count()) == least)
    assert here.bit_count() == fullest
    if shape.mem_mb is not None and not least:
        spare = sorted(room.spare_mb(at) for at in positions(here & ~avoid))
        assert sorted(room.spare_mb(at) for at in positions(chosen)) == spare[: shape.gpus]


def test_the_first_of_two_equally_full_nodes_and_of_equally_tight_gpus_is_taken() -> None:
    devices = [Device(f"gpu{at}", at, 10, node=at // 2) for at in range(4)]
    room = Room(Machine(devices))
    assert room.choose(Shape(2)) == 0b0011
    assert room.choose(Shape(1, mem_mb=5)) == 0b0001
    assert room.choose(Shape(3)) is None
    room.hold(2, 50.0, None)
    assert room.choose(Shape(1)) == 0b1000
    assert room.choose(Shape(1), avoid=0b1000) == 0b0001


def test_a_share_leaves_an_exclusive_gpu_alone_and_one_out_of_service_too(build: Any) -> None:
    devices = [*build.box(2), Device("gpu2", 2, 24_000, unavailable=DOWN)]
    room = Room(Machine(devices))
    for at in range(3):
        room.hold(at, 50.0, 1000)
    assert (room.free, room.shared) == (0, 0b011)
    room.hold(1, 60.0, None)
    assert room.shared == 0b001
    room.hold(1, 60.0, 1000)
    assert room.shared == 0b001


def linked(size: int, level: dict[tuple[int, int], int]) -> list[Device]:
    links = [{f"g{b}": level[min(a, b), max(a, b)] for b in range(size) if b != a} for a in range(size)]
    return [Device(f"g{at}", at, 10, links=links[at]) for at in range(size)]


@st.composite
def meshes(draw: Any) -> list[Device]:
    size = draw(st.integers(2, 5))
    return linked(size, {pair: draw(st.integers(0, 5)) for pair in combinations(range(size), 2)})


@given(meshes())
def test_the_closest_pair_has_the_best_link_and_takes_least_from_the_others(devices: list[Device]) -> None:
    table = distances(devices)
    every = range(len(devices))
    chosen = closest((1 << len(devices)) - 1, 2, table)
    if table is None:
        assert chosen == 0b11
        return

    def cost(pair: tuple[int, ...]) -> tuple[int, int]:
        others = [at for at in every if at not in pair]
        return table[pair[0]][pair[1]], sum(5 - table[a][b] for a in pair for b in others)

    nearest = min(cost(pair)[0] for pair in combinations(every, 2))
    found = tuple(positions(chosen))
    assert cost(found)[0] == nearest
    # From every seed the nearest is taken, of several the one that the rest misses least.
    grown = [
        (seed, min((o for o in every if o != seed), key=lambda o: (table[seed][o], _missed(o, seed, table), o)))
        for seed in every
    ]
    assert cost(found) == min(map(cost, grown))


def _missed(at: int, seed: int, table: list[list[int]]) -> int:
    return sum(5 - table[at][other] for other in range(len(table)) if other not in (at, seed))


def test_a_distance_is_the_link_that_either_side_knows_else_the_numa_node() -> None:
    a, b = Device("a", 0, 1, numa_node=0, links={"c": 2}), Device("b", 1, 1, numa_node=0)
    c, d = Device("c", 2, 1, numa_node=1), Device("d", 3, 1)
    e = Device("e", 4, 1, links={"d": 0})
    assert distances([a, b, c, d, e]) == [
        [0, 4, 2, 5, 5],
        [4, 0, 5, 5, 5],
        [2, 5, 0, 5, 5],
        [5, 5, 5, 0, 0],
        [5, 5, 5, 0, 0],
    ]
    assert distances([d, Device("f", 5, 1)]) is None
    assert distances([]) is None


def test_the_closest_of_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="not enough"):
        closest(0b101, 3, None)
    assert closest(0b1011, 2, None) == 0b0011
    assert closest(0b1011, 3, [[0] * 4] * 4) == 0b1011
    assert closest(0b1011, 0, [[0] * 4] * 4) == 0


def test_three_that_are_close_together_are_found_whole() -> None:
    fast = {(1, 3), (1, 4), (3, 4)}
    devices = linked(5, {pair: 0 if pair in fast else 3 for pair in combinations(range(5), 2)})
    assert closest(0b11111, 3, distances(devices)) == 0b11010
    # The pair that the three can do without.
    assert closest(0b11111, 2, distances(devices)).bit_count() == 2
    spare = linked(4, {(0, 1): 0, (0, 2): 0, (1, 2): 0, (2, 3): 0, (0, 3): 5, (1, 3): 5})
    assert closest(0b1111, 2, distances(spare)) == 0b0011


@pytest.mark.parametrize(
    ("facts", "table"),
    [
        ({}, None),
        ({"links": {"b": 0}}, [[0, 0, 5], [0, 0, 5], [5, 5, 0]]),
        ({"numa_node": 0}, [[0, 4, 5], [4, 0, 5], [5, 5, 0]]),
    ],
)
def test_a_machine_has_a_topology_when_its_links_or_its_numa_nodes_are_known(
    facts: dict[str, Any], table: list[list[int]] | None
) -> None:
    numa = facts.get("numa_node")
    devices = [Device("a", 0, 10, **facts), Device("b", 1, 10, numa_node=numa), Device("c", 2, 10)]
    assert Machine(devices).topology == table
