"""All attempts that have a folder in a home, whatever a database says of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from gpuq.supervise import bundle, ended

_RECORDS = ".records"


def found(jobs: str) -> Iterator[tuple[int, int, str]]:
    """(job id, number, own folder) of every attempt below `jobs`, in no order. Raises OSError."""
    for job_id in job_ids(jobs):
        folder = os.path.join(jobs, str(job_id))
        try:
            names = set(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for number in {name.removesuffix(_RECORDS) for name in names}:
            if _is_number(number):
                yield job_id, int(number), os.path.join(folder, number)


def job_ids(jobs: str) -> list[int]:
    """Of the jobs that have a folder; none where `jobs` is missing. Raises OSError."""
    try:
        return [int(name) for name in os.listdir(jobs) if _is_number(name)]
    except FileNotFoundError:
        return []


def spec(run_dir: str) -> dict[str, object]:
    """What the attempt was told to run, only its token and GPUs where its records are gone; empty when nothing can be
    read."""
    try:
        return bundle.read(bundle.records_of(run_dir), bundle.SPEC) or ended.spec_of(run_dir)
    except OSError:
        return {}


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 16 and not name.startswith("0")
