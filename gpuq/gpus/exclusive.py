"""One gpuq a GPU, whoever started it and wherever its home is.

A served GPU is an abstract Unix socket that carries its UUID. The kernel lets one process at a time have the name,
takes it back when that process ends in whatever way, and tells everybody whose it is. So there is no file that somebody
could make first, link elsewhere, lock or leave behind, and only a live process, which is named, can keep others from
it. The names are those of a network namespace: a container with one of its own does not see them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import selectors
import socket
import struct
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace

from gpuq.domain.gpu import Gpu, GpuObservation
from gpuq.errors import AlreadyRunning
from gpuq.gpus.nvml import NvmlGpus
from gpuq.ports.gpus import GpuSource

# How long the holder of a name is listened to, seconds, and how much of what it says: the path of its home.
_ANSWER_S = 1.0
_ANSWER_BYTES = 1024
_LONGEST_NAME = 100


def nvidia_gpus(home: str) -> GpuSource:
    """Those of the NVIDIA driver, for a daemon or a command of this home."""
    return ExclusiveGpus(NvmlGpus(), home)


class ExclusiveGpus:
    """The GPUs of `source`, each of which no other gpuq serves once they are claimed. `home`: what is told to whoever
    wants them too. Thread-safe as `source` is."""

    def __init__(self, source: GpuSource, home: str) -> None:
        self._source = source
        self._home = home.encode()[:_ANSWER_BYTES]
        self._held: dict[str, socket.socket] = {}
        self._lock = threading.Lock()
        self._claimed = False
        self._answers: _Answers | None = None

    def claim(self) -> None:
        """Raises AlreadyRunning, naming the holder, when one has another gpuq. GPUs that only come later are reported
        with that as their problem; before this call nothing is asked."""
        self._claimed = True
        for gpu in self._source.inventory():
            taken = self._take(gpu)
            if taken is not None:
                self._release()
                raise AlreadyRunning(
                    f"GPU {gpu.index} ({gpu.uuid}) is served by another gpuq: {_holder(taken)}",
                    hint="one gpuq a GPU: submit to that one, or have it stopped first (`gpuq down` by its user; root "
                    "may also kill that pid)",
                )

    def inventory(self) -> Sequence[Gpu]:
        return self._source.inventory()

    def observe(self, now: float) -> Sequence[GpuObservation]:
        readings = self._source.observe(now)
        if not self._claimed or all(reading.uuid in self._held for reading in readings):
            return readings
        taken = {gpu.uuid for gpu in self._source.inventory() if self._take(gpu) is not None}
        return [replace(one, problem="another gpuq serves it") if one.uuid in taken else one for one in readings]

    def hidden_from(self, uuids: Collection[str]) -> Sequence[str]:
        return self._source.hidden_from(uuids)

    def why_empty(self) -> str | None:
        return self._source.why_empty()

    def close(self) -> None:
        self._release()
        self._source.close()

    def _take(self, gpu: Gpu) -> bytes | None:
        """None when it is ours; else the name that another has."""
        with self._lock:
            if gpu.uuid in self._held:
                return None
            name = _name(gpu.uuid)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(name)
                listener.listen()
            except OSError as error:
                listener.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                return name
            listener.setblocking(False)
            self._held[gpu.uuid] = listener
            if self._answers is None:
                self._answers = _Answers(self._home)
            self._answers.add(listener)
            return None

    def _release(self) -> None:
        with self._lock:
            if self._answers is not None:
                self._answers.close()
                self._answers = None
            for listener in self._held.values():
                listener.close()
            self._held = {}


class _Answers:
    """A thread that tells everybody who asks where we live."""

    def __init__(self, home: bytes) -> None:
        self._home = home
        self._selector = selectors.DefaultSelector()
        self._end, self._told = socket.socketpair()
        self._selector.register(self._told, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="gpuq-gpu-names", daemon=True)
        self._thread.start()

    def add(self, listener: socket.socket) -> None:
        # epoll takes it while the thread waits.
        self._selector.register(listener, selectors.EVENT_READ)

    def close(self) -> None:
        self._end.close()
        self._thread.join()
        self._selector.close()
        self._told.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._told:
                    return
                assert isinstance(key.fileobj, socket.socket)
                # Whoever asked may be gone again, or there is no descriptor left for it.
                with contextlib.suppress(OSError):
                    asker, _ = key.fileobj.accept()
                    with asker:
                        asker.setblocking(False)
                        asker.send(self._home)


def _name(uuid: str) -> bytes:
    return b"\0gpuq/gpu/" + uuid.encode()[-_LONGEST_NAME + 10 :]


def _holder(name: bytes) -> str:
    """`pid 4711 of alice, home /home/alice/…`: process and user by the kernel's word, the home by the holder's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.settimeout(_ANSWER_S)
        try:
            asker.connect(name)
            pid, uid, _ = struct.unpack("3i", asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            # It has just ended, or does not listen yet.
            return "which does not say whose it is; try again"
        told = b""
        with contextlib.suppress(OSError):
            told = asker.recv(_ANSWER_BYTES)
    home = "".join(char if char.isprintable() else "?" for char in os.fsdecode(told).encode(errors="replace").decode())
    return f"pid {pid} of {_user(uid)}" + (f", home {home}" if home else ", which does not tell its home")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
