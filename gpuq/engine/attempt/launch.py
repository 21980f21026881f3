"""The launch step: folders for the job, then the supervisor."""

from __future__ import annotations

import os
from pathlib import Path

from gpuq.engine.context import Context
from gpuq.ports.launcher import LaunchOrder


def launch(ctx: Context, order: LaunchOrder) -> int:
    """The descriptor that reports. Raises OSError when a folder cannot be made; then nothing runs."""
    _own_folder(ctx.checkpoint_dir(order.job_id), order.spec.get("uid"), order.spec.get("gid"))
    return ctx.launcher.start(order)


def _own_folder(path: str, uid: int | None, gid: int | None) -> None:
    try:
        # Its parent may be missing at any attempt: the ones before may have died before they made it.
        Path(path).mkdir(parents=True)
    except FileExistsError:
        return
    # A daemon that serves several users runs as root; the job runs as its submitter and writes there.
    if uid is not None and os.geteuid() == 0 and uid != 0:
        os.chown(path, uid, -1 if gid is None else gid)
