"""Attempts that live on this machine and that the database does not know: one of the past was put in its place.

They are found when such a database is taken on, and written to `strays.json` in the home. As long as an attempt's lock
is held, its GPUs are not given to anybody. People end them, or import them into the database (`gpuq doctor`).
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gpuq.domain.gpu import Gpu
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.errors import WrongState

log = logging.getLogger(__name__)

NAME = "strays.json"
# How old the word on a lock may be.
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Stray:
    """`gpus`: as its job was told of them, UUIDs, or indices of simulated ones. `user` and `command` are for people."""

    job_id: int
    attempt: int
    token: str
    run_dir: str
    gpus: tuple[str, ...]
    user: str
    command: str

    @property
    def text(self) -> str:
        """For people: which attempt it is."""
        return f"job {self.job_id} attempt {self.attempt} ({self.user}: {self.command})"

    def holds(self, gpu: Gpu) -> bool:
        return gpu.uuid in self.gpus or (gpu.simulated and str(gpu.index) in self.gpus)

    def reason(self, gpu: Gpu) -> Reason:
        """Why nothing may start on this GPU."""
        text = f"gpu {gpu.index} is held by {self.text}, which runs and is not in the database; see `gpuq doctor`"
        return Reason(ReasonCode.EXTERNAL_PROCESS, text)


class Strays:
    """Of one home. `alive`: whether the attempt with that folder has a supervisor. Any thread. Costs nothing where
    there are none; they come while no daemon runs, so the file is read once."""

    def __init__(
        self, home: Path, alive: Callable[[str], bool], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = home / NAME
        self._alive = alive
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._known = self._read()

    def living(self) -> Sequence[Stray]:
        """As of a second ago at most. One that has ended does not come back."""
        if not self._known:
            return ()
        with self._lock:
            now = self._monotonic()
            if now - self._looked_at >= _LOOK_S:
                self._looked_at = now
                self._known = tuple(one for one in self._known if self._alive(one.run_dir))
            return self._known

    def on(self, gpu: Gpu) -> Stray | None:
        """The one that holds this GPU."""
        return next((one for one in self.living() if one.holds(gpu)), None)

    def refuse(self, job_id: int) -> None:
        """Raises WrongState while an attempt of this job lives: there is never a second one beside it."""
        for one in self.living():
            if one.job_id == job_id:
                raise WrongState(
                    f"job {job_id} cannot start again: its attempt {one.attempt} runs, unknown to the database",
                    hint="`gpuq doctor --end-strays` ends it, `gpuq doctor --import-strays` puts it into the database",
                )

    def write(self, strays: Sequence[Stray]) -> None:
        """These are all. Durable. Raises OSError."""
        draft = self._path.with_suffix(".draft")
        with draft.open("w") as file:
            draft.chmod(0o600)
            json.dump([asdict(one) for one in strays], file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        with self._lock:
            self._known, self._looked_at = tuple(strays), float("-inf")

    def _read(self) -> tuple[Stray, ...]:
        try:
            read = json.loads(self._path.read_bytes())
            return tuple(Stray(**{**one, "gpus": tuple(one["gpus"])}) for one in read)
        except FileNotFoundError:
            return ()
        except (ValueError, TypeError, KeyError):
            log.error("%s cannot be read: what runs unknown to the database is not known", self._path)
            return ()
