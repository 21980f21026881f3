"""The agent of this process, as a submission sees it: it takes jobs, and may start one with its submission."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from gpuq.domain import failpoints
from gpuq.domain.states import JobState
from gpuq.engine.context import IntakeContext
from gpuq.engine.hot.queue_hints import publish_jobs
from gpuq.engine.hot.ranking import wanted
from gpuq.engine.intake.newborn import foreseen, waiting_of_all
from gpuq.engine.intake.request import Asked, Submitted
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import NewJob, Waiting, Writer

# More jobs of one submission than that are not handed to the agent, but put into the hot queue.
HANDED_OVER = 64


class Agent(Protocol):
    """The agent of this process, to those who give it work."""

    def hear(self, jobs: Sequence[Waiting]) -> None:
        """Jobs that were just stored and wait in line, of which the hot queue has not been told."""

    def wake(self) -> None:
        """Something may be startable."""

    def chance(self, job: Waiting) -> AbstractContextManager[Chance | None]:
        """GPUs for a job that is about to be stored, which it may be claimed with in the same transaction; None when it
        has to go the usual road. What was claimed is launched when the block is left."""


class Chance(Protocol):
    """What a submission does with the GPUs that are leased to it."""

    def claim(self, tx: Writer, job_id: int, new: NewJob) -> None:
        """In the transaction that has stored the job."""

    def committed(self) -> bool:
        """After the transaction: whether the job is claimed."""


@contextmanager
def chance_of(ctx: IntakeContext, agent: Agent | None, asked: Asked) -> Iterator[Chance | None]:
    """For what is stored in the block: a single job may be started with its submission, if the agent of this process
    sees nothing that it has to wait for. See `gpuq.engine.claim.direct`."""
    job = None
    if agent is not None and len(asked.specs) == 1:
        job = foreseen(asked.specs[0], asked.caller, wanted(ctx), ctx.clock.now())
    if agent is None or job is None:
        yield None
        return
    with agent.chance(job) as chance:
        yield chance


def tell(ctx: IntakeContext, done: Submitted, agent: Agent | None = None) -> None:
    """Makes what is stored known to the hot queue and to whoever waits for news; nobody needs to wait for this. An
    `agent` of this process is told of a few jobs itself, and puts into the hot queue what it does not start."""
    tell_all(ctx, [done], agent)


def tell_all(ctx: IntakeContext, several: Sequence[Submitted], agent: Agent | None) -> None:
    """As `tell`, of several submissions at once."""
    states: set[JobState] = set()
    handed: list[Waiting] = []
    listed: list[QueueEntry] = []
    for done in several:
        states.update(job.state for job in done.stored.values())
        queued = [
            (job_id, job) for job_id, job in done.stored.items() if job.state is JobState.QUEUED and not done.claimed
        ]
        if agent is not None and len(queued) <= HANDED_OVER:
            handed += waiting_of_all(queued)
        else:
            listed += [QueueEntry(job_id, job.spec.gpus, job.score) for job_id, job in queued]
    if not states:
        return
    publish_jobs(ctx, listed)
    if agent is not None and handed:
        agent.hear(handed)
        agent.wake()
    failpoints.point("submit.hinted")
    if JobState.DELAYED in states:
        ctx.notifier.publish(Topic.DELAYED)
    ctx.notifier.publish(Topic.EVENTS)
