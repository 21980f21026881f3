"""A job sees only its own GPUs: in a mount namespace of its own, the device nodes of the others cannot be opened.

Each of those nodes is mounted over itself without devices (`nodev`): it is still listed, but to open it is refused with
EACCES, also to root, as a device cgroup would. A job's user can neither unmount it, nor make a node, nor see
what is below from a user namespace of its own, where the kernel locks mounts that come from a more privileged
one. The namespace is the job's alone and goes with its last process, so nothing is left on the machine; mounts that the
machine makes later still appear in it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_CLONE_NEWNS = 0x00020000
_MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 0x4, 0x20, 0x1000, 0x4000, 0x80000


class CannotIsolate(Exception):
    """Its text says which step the kernel refused, and why."""


def hide(nodes: Sequence[str]) -> None:
    """Moves the calling thread into a mount namespace where none of these device nodes can be opened. One that is not
    there (any more) is hidden already. Needs root. Raises CannotIsolate, also for what is no device node."""
    _call("a mount namespace of its own", _libc.unshare(_CLONE_NEWNS))
    # What is mounted in here must not appear outside.
    _call("private mounts", _libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
    for node in nodes:
        try:
            mode = os.stat(node).st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CannotIsolate(f"{node} cannot be hidden: {error.strerror}") from None
        if not stat.S_ISCHR(mode):
            raise CannotIsolate(f"{node} cannot be hidden: it is not a device node")
        path = os.fsencode(node)
        _call(f"{node} hidden", _libc.mount(path, path, None, _MS_BIND, None))
        _call(f"{node} hidden", _libc.mount(None, path, None, _MS_REMOUNT | _MS_BIND | _MS_NODEV, None))


def works() -> str | None:
    """None where a node can be hidden from a job; else why not. Tried with /dev/null in a thread, which has a namespace
    of its own and takes it along."""
    found: list[str | None] = []

    def attempt() -> None:
        try:
            hide(["/dev/null"])
            os.close(os.open("/dev/null", os.O_RDONLY))
        except CannotIsolate as error:
            found.append(str(error))
        except PermissionError:
            found.append(None)
        else:
            found.append("a node that was hidden could still be opened")

    thread = threading.Thread(target=attempt, name="gpuq-try-isolation")
    thread.start()
    thread.join()
    return found[0] if found else "it could not be tried"


def _call(what: str, result: int) -> None:
    if result != 0:
        raise CannotIsolate(f"{what}: {os.strerror(ctypes.get_errno())}")
