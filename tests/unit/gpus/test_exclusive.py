"""A GPU has one gpuq, whoever starts another and wherever its home is. The GPUs are played, the names are real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpuq.errors import AlreadyRunning
from gpuq.gpus.exclusive import ExclusiveGpus
from gpuq.gpus.simulated import SimulatedGpus

Make = Callable[..., ExclusiveGpus]


class Played(SimulatedGpus):
    """As many as `count` says, under UUIDs that no card has and no other run of these tests."""

    def __init__(self, count: int, run: str = f"{os.getpid()}") -> None:
        super().__init__("sim:4", None)
        self._gpus = tuple(replace(gpu, uuid=f"GPU-{run}-{gpu.index}", simulated=False) for gpu in self._gpus)
        self._all, self._gpus = self._gpus, self._gpus[:count]

    def more(self) -> None:
        self._gpus = self._all


@pytest.fixture
def serve() -> Iterator[Make]:
    made: list[ExclusiveGpus] = []

    def make(count: int = 2, home: str = "/srv/first") -> ExclusiveGpus:
        made.append(ExclusiveGpus(Played(count), home))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_second_gpuq_is_refused_and_told_whose_the_first_is(serve: Make) -> None:
    serve().claim()
    second = serve(home="/srv/second")
    for _ in range(3):
        with pytest.raises(AlreadyRunning) as refusal:
            second.claim()
    assert f"pid {os.getpid()} of root" in refusal.value.message or os.geteuid() != 0
    assert refusal.value.message.endswith("home /srv/first")
    assert refusal.value.exit_code == 4
    assert "gpuq down" in (refusal.value.hint or "")


def test_whoever_is_refused_keeps_nothing_and_whoever_ends_gives_all_back(serve: Make) -> None:
    first, wider, third = serve(1), serve(4), serve(4)
    first.claim()
    with pytest.raises(AlreadyRunning):
        wider.claim()
    first.close()
    third.claim()
    assert all(one.problem is None for one in third.observe(0.0))


def test_who_only_looks_takes_nothing(serve: Make) -> None:
    serve().claim()
    onlooker = serve()
    assert [one.problem for one in onlooker.observe(0.0)] == [None, None]
    assert len(onlooker.inventory()) == 2


def test_a_gpu_that_comes_later_and_has_another_gpuq_is_given_to_nobody(serve: Make) -> None:
    late = Played(2)
    other = ExclusiveGpus(late, "/srv/late")
    other.claim()
    rest = serve(4, home="/srv/rest")
    with pytest.raises(AlreadyRunning):
        rest.claim()
    other.close()
    rest.claim()
    first = Played(0)
    blind = ExclusiveGpus(first, "/srv/blind")
    blind.claim()
    assert blind.observe(0.0) == []
    first.more()
    assert all(one.problem == "another gpuq serves it" for one in blind.observe(0.0))
    rest.close()
    assert all(one.problem is None for one in blind.observe(0.0))
    blind.close()


def test_a_holder_that_says_nothing_is_named_by_the_kernel(serve: Make) -> None:
    uuid = Played(1).inventory()[0].uuid
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        mute.bind(f"\0gpuq/gpu/{uuid}")
        with pytest.raises(AlreadyRunning, match="does not say whose it is"):
            serve().claim()
        mute.listen()
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()} of .* which does not tell its home"):
            serve().claim()


def test_what_a_holder_says_steers_no_terminal(serve: Make) -> None:
    serve(home="/srv/\x1b[31mred\n").claim()
    with pytest.raises(AlreadyRunning, match=r"home /srv/\?\[31mred\?$"):
        serve().claim()


def test_the_names_of_a_process_that_is_killed_are_free_at_once(serve: Make) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_exclusive import ExclusiveGpus, Played
gpus = ExclusiveGpus(Played(2, run={str(os.getpid())!r}), "/srv/killed")
gpus.claim()
print("served", flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"served\n"
            with pytest.raises(AlreadyRunning, match=f"pid {holder.pid} of .* home /srv/killed"):
                serve().claim()
        finally:
            holder.kill()
    serve().claim()
