"""Simulated GPUs: for trying gpuq out on any machine, and for tests against a live daemon.

They are empty and healthy unless the state file says otherwise:

    {"0": {"used_mb": 9000, "processes": [{"pid": 311, "mem_mb": 9000, "user": "alice", "command": "python"}]},
     "1": {"problem": "Xid 79: GPU has fallen off the bus"},
     "2": {"processes": null}}

`processes` null means that the driver would not say; `used_mb` defaults to what the processes add up to;
`utilisation` (0 to 1) may be given, and `device_nodes`, paths that stand for what opens the GPU. The file is read again
whenever it changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from gpuq.domain.gpu import Gpu, GpuObservation, GpuProcess
from gpuq.domain.quantities import parse_memory_mb
from gpuq.errors import ConfigError

_SPEC = re.compile(r"sim:(\d{1,4})(?:x(\d+[MG]?))?")
_MAX_BYTES = 1024 * 1024
_DEFAULT_MB = 24 * 1024
_FIELDS = frozenset({"used_mb", "processes", "problem", "utilisation", "device_nodes"})


class SimulatedGpus:
    """`spec` is `sim:4` or `sim:4x24G` (memory of each GPU). Raises ConfigError for anything else."""

    def __init__(self, spec: str, state_file: Path | None = None) -> None:
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise ConfigError(f"bad setting gpus: {spec!r}", hint="write nvml, sim:4 or sim:4x24G")
        memory_mb = parse_memory_mb(match[2]) if match[2] else _DEFAULT_MB
        self._gpus = tuple(
            Gpu(index=index, uuid=uuid_of(index), model="Simulated GPU", memory_mb=memory_mb, simulated=True)
            for index in range(int(match[1]))
        )
        self._state_file = state_file
        self._stamp: tuple[int, int, int] | None = None
        self._state: dict[int, dict[str, Any]] = {}
        self._unreadable: str | None = None

    def claim(self) -> None:
        """Every home has simulated ones of its own."""

    def inventory(self) -> Sequence[Gpu]:
        return self._gpus

    def observe(self, now: float) -> Sequence[GpuObservation]:
        self._refresh()
        return [self._reading(gpu, now) for gpu in self._gpus]

    def hidden_from(self, uuids: Collection[str]) -> Sequence[str]:
        self._refresh()
        nodes = {gpu.uuid: self._state.get(gpu.index, {}).get("device_nodes", []) for gpu in self._gpus}
        own = {node for uuid in uuids for node in nodes.get(uuid, ())}
        return sorted({node for listed in nodes.values() for node in listed} - own)

    def why_empty(self) -> str | None:
        if self._gpus:
            return None
        return "GPUQ_GPUS=sim:0 asks for no GPU at all; write sim:4 for four simulated ones"

    def close(self) -> None:
        """Nothing is held open."""

    def _reading(self, gpu: Gpu, now: float) -> GpuObservation:
        state = self._state.get(gpu.index, {})
        listed = state.get("processes", [])
        processes = None if listed is None else tuple(GpuProcess(**process) for process in listed)
        used = state.get("used_mb")
        return GpuObservation(
            uuid=gpu.uuid,
            at=now,
            used_mb=sum(process.mem_mb or 0 for process in processes or ()) if used is None else int(used),
            utilisation=float(state.get("utilisation", 0.0)),
            processes=processes,
            # A state that cannot be understood is no proof that a GPU is free.
            problem=self._unreadable or state.get("problem"),
        )

    def _refresh(self) -> None:
        if self._state_file is None:
            return
        try:
            found = self._state_file.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except FileNotFoundError:
            self._stamp, self._state, self._unreadable = None, {}, None
            return
        if stamp == self._stamp:
            return
        try:
            self._state = self._parse(self._text(found.st_size))
            self._unreadable = None
        except RecursionError:
            self._state, self._unreadable = {}, f"{self._state_file} cannot be understood: it is nested too deep"
        except (OSError, ValueError, TypeError) as error:
            self._state, self._unreadable = {}, f"{self._state_file} cannot be understood: {error}"
        self._stamp = stamp

    def _text(self, size: int) -> str:
        assert self._state_file is not None
        if not self._state_file.is_file() or size > _MAX_BYTES:
            raise ValueError("a regular file of at most 1 MiB is expected")
        return self._state_file.read_text(encoding="utf-8")

    def _parse(self, text: str) -> dict[int, dict[str, Any]]:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("the file holds one JSON object, from GPU index to its state")
        state: dict[int, dict[str, Any]] = {}
        for key, value in document.items():
            if not (key.isascii() and key.isdigit() and len(key) < 5 and int(key) < len(self._gpus)):
                raise ValueError(f"there is no simulated GPU {key[:20]!r}")
            if not isinstance(value, dict) or not value.keys() <= _FIELDS:
                raise ValueError(f"GPU {key}: an object with {', '.join(sorted(_FIELDS))} is expected")
            _check(key, value)
            nodes = value.get("device_nodes", [])
            if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
                raise ValueError(f"GPU {key}: device_nodes is a list of paths")
            state[int(key)] = value
        return state


def _check(key: str, state: dict[str, Any]) -> None:
    """Raises ValueError, and TypeError for a process with other fields than its own."""
    used, share, problem = state.get("used_mb"), state.get("utilisation", 0.0), state.get("problem")
    if not (used is None or _is_count(used)):
        raise ValueError(f"GPU {key}: used_mb is a whole number of MiB")
    # Neither NaN nor 1e999, which Python's JSON knows.
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"GPU {key}: utilisation is a number from 0 to 1")
    if not (problem is None or isinstance(problem, str)):
        raise ValueError(f"GPU {key}: problem is a text")
    processes = state.get("processes", [])
    if not (processes is None or (isinstance(processes, list) and all(isinstance(one, dict) for one in processes))):
        raise ValueError(f"GPU {key}: processes is a list of objects, or null")
    for given in processes or ():
        process = GpuProcess(**given)
        counts = _is_count(process.pid) and (process.mem_mb is None or _is_count(process.mem_mb))
        texts = all(text is None or isinstance(text, str) for text in (process.user, process.command))
        if not (counts and texts):
            raise ValueError(f"GPU {key}: a process has pid and mem_mb, whole numbers, user and command, texts")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def uuid_of(index: int) -> str:
    """The same on every machine and in every run."""
    return f"SIM-00000000-0000-0000-0000-{index:012d}"
