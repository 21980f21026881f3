"""Whether everything that remembers says the same once nothing is left to do: rows, Redis, processes, control groups
and folders, each read here and by nothing of gpuq."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from installation import Installation

GROUPS = Path("/sys/fs/cgroup")
TEMPORARY = (".tmp", ".new", ".part")
# What stands beside the folders of jobs.
OF_ALL_JOBS = frozenset({".spare", "ended.jsonl", "ended.jsonl.1"})


class Agreement:
    def __init__(self, box: Installation) -> None:
        self._box = box

    def at_rest(self, jobs: list[dict[str, Any]], attempts: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
        """While the daemon still runs, and all jobs are final. Promise and text of each disagreement."""
        yield from self._redis()
        yield from self._folders(jobs, attempts)
        for group in self._own_groups():
            yield from (("P7", f"{pid} is still in {group}") for pid in _members(group) if not self._is_idle(pid))

    def after(self) -> Iterator[tuple[str, str]]:
        """When the daemon and all of its processes have ended."""
        yield from (("P7", f"control group left over: {group}") for group in self._own_groups())

    def _redis(self) -> Iterator[tuple[str, str]]:
        with contextlib.closing(self._box.redis()) as link:
            for key in sorted(link.scan_iter("gpuq:queue:*")):
                yield from (("P5", f"{key} still has {member}") for member in link.zrange(key, 0, 9))

    def _folders(self, jobs: list[dict[str, Any]], attempts: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
        known = {row["id"] for row in jobs}
        runs = {(row["job_id"], row["number"]) for row in attempts}
        for folder in sorted((self._box.volume / "jobs").glob("*")):
            if folder.name in OF_ALL_JOBS:
                continue
            if not folder.name.isdigit() or int(folder.name) not in known:
                yield "P1", f"a folder of no job: {folder}"
                continue
            for path in sorted(folder.rglob("*")):
                number = path.name.removesuffix(".records")
                if path.parent == folder and number.isdigit() and (int(folder.name), int(number)) not in runs:
                    yield "P2", f"a folder of no attempt: {path}"
                if path.name.startswith(".") or path.suffix in TEMPORARY:
                    yield "P4", f"a file that was never put in its place: {path}"

    def _own_groups(self) -> list[Path]:
        """Deepest first, of any hierarchy; their name tells device and inode of the home."""
        home = self._box.volume.stat()
        name = f"gpuq-{home.st_dev:x}-{home.st_ino:x}-"
        found = [Path(at, one) for at, names, _ in os.walk(GROUPS) for one in names if name in f"{at}/{one}"]
        return sorted(found, key=lambda path: -len(path.parts))

    def _is_idle(self, pid: int) -> bool:
        """A supervisor that waits for its next attempt."""
        mine = [one for one in self._box.supervisors() if one.pid == pid]
        return bool(mine) and not self._box.runs_of(mine[0])


def _members(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []
