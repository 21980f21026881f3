"""What a job says of its own progress: any bytes of its user's, of which nothing may be an error."""

from __future__ import annotations

import os

from gpuq import user_files
from gpuq.supervise import bundle

# It is looked at with every listing.
MOST_BYTES = 64 * 1024
DEEPEST = 20


def read(run_dir: str, uid: int | None) -> dict[str, object] | None:
    """`progress.json` in the own folder of a job of user `uid`; None when there is none, and for anything but an object
    of at most 64 KiB, nested at most 20 deep, in a file that is that user's alone."""
    try:
        fd = user_files.open_file(run_dir, bundle.PROGRESS, uid)
    except OSError:
        return None
    try:
        data = bundle.read_at_most(fd, MOST_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    if len(data) > MOST_BYTES:
        return None
    record = bundle.parsed(data)
    return record if record is not None and not bundle.deeper(record, DEEPEST) else None
