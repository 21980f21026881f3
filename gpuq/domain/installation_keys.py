"""The names under which the database keeps what holds for a whole installation or one of its nodes."""

from __future__ import annotations

from enum import StrEnum


class InstallationKey(StrEnum):
    """Stored by every release, so a value never changes. Those that are kept per node, GPU or group are written with
    `of`, and found with `prefix`."""

    PAUSED = "paused"  # {"by", "reason", "at"} while no new job may start
    DRAINED = "drained"  # of (node, GPU uuid): {"by", "reason", "at"}
    MAINTENANCE = "maintenance"  # of (node,): a planned drain, as `gpuq.domain.window.Window` stores it
    GROUP_LIMIT = "group-limit"  # of (group,): {"running", "by", "at"}
    LIMIT = "limit"  # of (kind,) or (kind, name): what `gpuq.domain.limits.Limits` has; the running of a group above
    LAUNCH_TROUBLE = "obstacle"  # of (node,): why nothing can be started there, a text for people
    STUCK = "stuck"  # of (node, job id): {"attempt", "text"} of one that does not come to its end
    IDLE = "idle"  # of (node, job id): {"attempt", "since"} of one whose GPUs stand still
    RANKING = "ranking"  # the rule of the line that is in force
    INSTALLATION = "installation"  # the name of this database, a token: whose a home is
    NAMESPACE_OWNER = "namespace-owner"  # the id under which this database has a namespace of Redis
    FILES_MEASURED = "files-measured"  # the last event whose job's files were measured
    DISK_FREE = "disk-free"  # of (node,): [[at, bytes free], …] of the last day, the oldest first
    EPOCH = "epoch"  # the marker that a hot store must carry to be believed
    RUNS = "runs"  # of (node,): the folder in which the jobs' own folders are
    AGENT = "agent"  # of (node,): the token of the agent that took the node last

    def of(self, *names: str) -> str:
        return ":".join((self, *names))

    def prefix(self, *names: str) -> str:
        """What all keys of this kind begin with, those of one node for instance."""
        return f"{self.of(*names)}:"
