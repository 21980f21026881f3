"""What an attempt holds: one share of each of its GPUs, named by its token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """`mem_mb` is the share of each GPU in MiB; None holds each GPU alone."""

    node: str
    token: str
    gpu_uuids: tuple[str, ...]
    mem_mb: int | None = None
