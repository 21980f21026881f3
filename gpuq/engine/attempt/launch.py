"""The launch step: folders for the job, then the supervisor."""

from __future__ import annotations

import os
from pathlib import Path

from gpuq.engine.context import Context
from gpuq.ports.launcher import LaunchOrder
from gpuq.user_files import hand_over, make_passage, make_private


def launch(ctx: Context, order: LaunchOrder) -> int:
    """The descriptor that reports. Raises OSError when a folder cannot be made; then nothing runs."""
    checkpoint, uid, gid = ctx.checkpoint_dir(order.job_id), order.spec.get("uid"), order.spec.get("gid")
    job = str(Path(checkpoint).parent)
    new = not os.path.lexists(job)
    if new:
        make_passage(job)
    if not new or not ctx.launcher.take_spare(checkpoint, uid, gid):
        _make_checkpoint_folder(checkpoint, uid, gid)
    return ctx.launcher.start(order)


def _make_checkpoint_folder(path: str, uid: int | None, gid: int | None) -> None:
    """The user's alone, and kept by all attempts of the job; its parent may be missing at any of them."""
    made = make_private(path)
    if not made:
        make_passage(str(Path(path).parent))
    # An earlier attempt may have died before it gave the folder away. One that is the user's is left as it is.
    if made or os.lstat(path).st_uid == os.geteuid():
        hand_over(path, uid, gid)
