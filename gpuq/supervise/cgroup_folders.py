"""Where control groups can be made: the hierarchies that are mounted, and this home's folder in them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

V2 = "v2"
FREEZER = "freezer"
# The better first.
KINDS = (V2, FREEZER)
_SWITCHES = {V2: ("cgroup.kill", "cgroup.freeze"), FREEZER: ("freezer.state",)}


def folder_name(home: str) -> str:
    """Of the groups of this home's supervisors; another PID namespace, where PIDs mean other processes, has its own.
    Raises OSError without such a home."""
    seen, namespace = os.stat(home), os.stat("/proc/self/ns/pid")
    return f"gpuq-{seen.st_dev:x}-{seen.st_ino:x}-{namespace.st_ino:x}"


def available(folder: str, kinds: Sequence[str] = KINDS) -> list[tuple[str, str]]:
    """Kind and path of each folder that groups can be made in, the better kind first; made if need be, below the group
    that this process is in."""
    found = []
    for kind, point, own in _hierarchies():
        if kind not in kinds:
            continue
        parent = os.path.join(point, own, folder)
        try:
            make(parent)
        except OSError:
            continue
        if _usable(kind, parent):
            found.append((kind, parent))
        else:
            remove([(kind, parent)])
    return sorted(found, key=lambda item: KINDS.index(item[0]))


def found(folder: str) -> list[tuple[str, str]]:
    """Kind and path of each folder of that name which is ours, wherever a fork server has made it."""
    return sorted(_folders(folder), key=lambda item: KINDS.index(item[0]))


def remove(places: Sequence[tuple[str, str]]) -> None:
    """The folders, where nothing is in them any more."""
    for _, parent in places:
        with contextlib.suppress(OSError):
            os.rmdir(parent)


def _folders(folder: str) -> Iterator[tuple[str, str]]:
    for kind, point, _ in _hierarchies():
        line = [point]
        for path in line:
            for name in subfolders(path):
                below = os.path.join(path, name)
                line.append(below)
                if name == folder and _usable(kind, below):
                    yield kind, below


def _usable(kind: str, folder: str) -> bool:
    """Ours, and of a kernel that can kill or freeze a group; something else may be mounted over the hierarchy."""
    try:
        ours = os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False
    return ours and any(os.access(os.path.join(folder, switch), os.W_OK) for switch in _SWITCHES[kind])


def _hierarchies() -> list[tuple[str, str, str]]:
    """Kind, mount point, and where this process is in it."""
    own: dict[str, str] = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            if number == "0":
                own[V2] = path
            elif "freezer" in controllers.split(","):
                own[FREEZER] = path
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            root, point = left.split()[3:5]
            system, _, options = right.split(None, 2)
            kind = V2 if system == "cgroup2" else FREEZER
            if system not in ("cgroup", "cgroup2") or kind not in own or "\\" in point:
                continue
            if kind == FREEZER and "freezer" not in options.strip().split(","):
                continue
            below = root.rstrip("/") + "/"
            if (own[kind].rstrip("/") + "/").startswith(below) and "/../" not in own[kind] + "/":
                found.append((kind, point, own[kind][len(below) :]))
    return found


def make(path: str) -> None:
    """A folder that others may read. Raises OSError; one that is there is right."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)


def subfolders(path: str) -> list[str]:
    """Names; none where the folder cannot be read."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
