"""Leases against the plainest model there is: a dictionary."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuq.ports.hot_queue import GpuClaim, QueueEntry, Taken
from gpuq.stores.redis import RedisHotQueue, RedisLeases

NODE = "box1"
TOTAL = 100
UUIDS = ["G0", "G1", "G2"]
TOKENS = ["a", "b", "c", "d"]

uuids = st.lists(st.sampled_from(UUIDS), min_size=1, max_size=3, unique=True)
shares = st.one_of(st.none(), st.integers(1, 60))
steps = st.one_of(
    st.tuples(st.just("take"), st.sampled_from(TOKENS), uuids, shares),
    st.tuples(st.just("hold"), st.sampled_from(TOKENS), uuids, shares),
    st.tuples(st.just("release"), st.sampled_from(TOKENS), uuids),
    st.tuples(st.just("give_back"), st.sampled_from(TOKENS), uuids),
    st.tuples(st.just("renew"), st.sampled_from(TOKENS), uuids),
    st.tuples(st.just("expire"), st.sampled_from(TOKENS), uuids),
)


def milliseconds(client: Any) -> int:
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


class Model:
    """GPU → token → share (None alone), and whether the one job is in line."""

    def __init__(self) -> None:
        self.gpus: dict[str, dict[str, int | None]] = {uuid: {} for uuid in UUIDS}
        self.queued = True

    def fits(self, token: str, uuid: str, share: int | None) -> bool:
        others = [held for holder, held in self.gpus[uuid].items() if holder != token]
        if share is None or None in others:
            return not others
        return sum(held for held in others if held is not None) + share <= TOTAL

    def take(self, token: str, chosen: list[str], share: int | None) -> Taken:
        if not self.queued:
            return Taken.TAKEN if all(token in self.gpus[uuid] for uuid in chosen) else Taken.MISSING
        if not all(self.fits(token, uuid, share) for uuid in chosen):
            return Taken.BUSY
        self.hold(token, chosen, share)
        self.queued = False
        return Taken.TAKEN

    def hold(self, token: str, chosen: list[str], share: int | None) -> None:
        for uuid in chosen:
            self.gpus[uuid][token] = share

    def drop(self, token: str, chosen: list[str]) -> None:
        for uuid in chosen:
            self.gpus[uuid].pop(token, None)

    def lost(self, token: str, chosen: list[str]) -> list[str]:
        return [] if all(token in self.gpus[uuid] for uuid in chosen) else [token]

    def holders(self) -> dict[str, list[str]]:
        return {uuid: sorted(held) for uuid, held in self.gpus.items() if held}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(steps, max_size=25))
def test_leases_do_what_the_model_says(
    store: Any, queue: RedisHotQueue, leases: RedisLeases, script: list[tuple[Any, ...]]
) -> None:
    job = QueueEntry(1, 1, 5.0)
    client = store.links[0].client
    client.flushall()
    queue.rebuild([job], epoch="e1")
    queue.open("e1")
    model = Model()
    for verb, token, chosen, *rest in script:
        if verb == "take":
            claims = [GpuClaim(uuid, rest[0], TOTAL) for uuid in chosen]
            assert leases.take(job, NODE, token, claims, 60) is model.take(token, chosen, rest[0])
        elif verb == "hold":
            leases.hold(NODE, token, [GpuClaim(uuid, rest[0], TOTAL) for uuid in chosen], 60)
            model.hold(token, chosen, rest[0])
        elif verb == "release":
            leases.release(NODE, token, chosen)
            model.drop(token, chosen)
        elif verb == "give_back":
            leases.give_back(job, NODE, token, chosen)
            model.drop(token, chosen)
            model.queued = True
        elif verb == "renew":
            assert leases.renew(NODE, [(token, chosen)], 60) == model.lost(token, chosen)
        else:
            assert leases.renew(NODE, [(token, chosen)], 0.001) == model.lost(token, chosen)
            model.drop(token, chosen)
            # What was given one millisecond more is over when Redis' clock has passed it.
            over = milliseconds(client) + 2
            while milliseconds(client) < over:
                time.sleep(0.0005)
        held = {uuid: sorted(tokens) for uuid, tokens in leases.holders(NODE).items()}
        assert held == model.holders()
        assert queue.sizes() == ({1: 1} if model.queued else {})
