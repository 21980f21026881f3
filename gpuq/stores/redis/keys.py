"""The key map. Every key begins with the namespace; nothing here is worth a backup.

{ns}:epoch                string  marker of a rebuilt store: the epoch that its agent chose. No marker, no answers.
{ns}:rebuild              string  the epoch of a rebuild under way; gone when it has been opened, or flushed
{ns}:owner                string  `id text`: the installation whose namespace this is, as its database has it
{ns}:queues               set     numbers of GPUs that a queue exists for (some may be empty)
{ns}:queue:{gpus}         zset    waiting jobs that ask for this many GPUs: member is the zero-padded job id,
                                  score the place in line, so that equal scores fall in the order of ids
{ns}:lease:{node}:{uuid}  zset    who holds this GPU: member is `token:share`, share in MiB or -1 for alone;
                                  score is the end of the lease in epoch milliseconds of Redis' own clock
{ns}:leases:{node}        set     UUIDs of the node's GPUs that were ever leased
{ns}:agent:{node}         string  token of the one agent of this node, with a TTL
{ns}:wake                 channel `origin topic`: something changed (see gpuq.stores.redis.notify)
"""

from __future__ import annotations

from dataclasses import dataclass

# Text order is the order of ids up to a million million jobs (beyond, only among equal scores it is not), and a
# member is as long as what Redis allocates for it: 16 bytes with its header.
ID_DIGITS = 12


def padded(job_id: int) -> str:
    return f"{job_id:0{ID_DIGITS}d}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of the keys in Redis, all under one namespace."""

    namespace: str

    @property
    def epoch(self) -> str:
        return f"{self.namespace}:epoch"

    @property
    def rebuild(self) -> str:
        return f"{self.namespace}:rebuild"

    @property
    def owner(self) -> str:
        return f"{self.namespace}:owner"

    @property
    def queues(self) -> str:
        return f"{self.namespace}:queues"

    @property
    def queue_prefix(self) -> str:
        return f"{self.namespace}:queue:"

    @property
    def wake(self) -> str:
        return f"{self.namespace}:wake"

    def queue(self, gpus: int) -> str:
        return f"{self.namespace}:queue:{gpus}"

    def lease_prefix(self, node: str) -> str:
        return f"{self.namespace}:lease:{node}:"

    def lease(self, node: str, uuid: str) -> str:
        return f"{self.namespace}:lease:{node}:{uuid}"

    def leases(self, node: str) -> str:
        return f"{self.namespace}:leases:{node}"

    def agent(self, node: str) -> str:
        return f"{self.namespace}:agent:{node}"
