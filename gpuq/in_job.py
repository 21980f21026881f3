"""What a program says from within its job: how far it is, and what it leaves.

Light to import, because training scripts do so: the standard library only, and little of it. Outside a job every call
does nothing, so that a script also runs by itself.
"""

from __future__ import annotations

import os

# As in gpuq.errors: typing costs 8 ms of import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# What `gpuq.supervise.results` keeps of it.
_LONGEST_SHORT = 1024


class Current:
    """The job that this process belongs to, as its environment tells it. `attempt` counts from 1; `gpus`: indices on
    this machine; `run_dir`: the attempt's own folder; `array_id` and `array_index` are None outside an array."""

    __slots__ = ("array_id", "array_index", "attempt", "gpus", "id", "name", "run_dir")

    def __init__(self) -> None:
        env = os.environ
        self.id = int(env["GPUQ_JOB_ID"])
        self.attempt = int(env["GPUQ_ATTEMPT"])
        self.name = env.get("GPUQ_JOB_NAME", "")
        self.gpus = tuple(int(index) for index in env.get("GPUQ_GPUS", "").split(",") if index)
        self.run_dir = env["GPUQ_RUN_DIR"]
        self.array_id = _whole("GPUQ_ARRAY_ID")
        self.array_index = _whole("GPUQ_ARRAY_INDEX")

    def __repr__(self) -> str:
        return f"Current(id={self.id}, attempt={self.attempt}, gpus={self.gpus})"

    @property
    def time_left_s(self) -> float | None:
        """Seconds until its time limit, 0 when that is over; None: it has none."""
        import time

        end = os.environ.get("GPUQ_TIME_LIMIT_END")
        return None if end is None else max(0.0, float(end) - time.time())


def current() -> Current | None:
    """The job that this process belongs to; None outside one."""
    try:
        return Current()
    except (KeyError, ValueError):
        return None


def progress(
    fraction: float | None = None, *, step: int | None = None, total: int | None = None, message: str | None = None
) -> None:
    """Says how far the job is: `fraction` from 0 to 1, `step` of `total` unless given. `gpuq status` shows it. Never
    raises for a disk that takes no file: no training is to end for that.

    Raises ValueError for a fraction that is none.
    """
    folder = os.environ.get("GPUQ_RUN_DIR")
    if folder is None:
        return
    if fraction is None and step is not None and total:
        fraction = min(1.0, step / total)
    # Also what is no number at all (NaN), which compares with nothing.
    if fraction is not None and not 0 <= fraction <= 1:
        raise ValueError(f"progress is a number from 0 to 1, not {fraction!r}")
    said = {
        "progress": None if fraction is None else repr(float(fraction)),
        "step": None if step is None else repr(int(step)),
        "total": None if total is None else repr(int(total)),
        "message": None if message is None else _quoted(str(message)),
    }
    text = ", ".join(f'"{name}": {value}' for name, value in said.items() if value is not None)
    try:
        _replace(os.path.join(folder, "progress.json"), f"{{{text}}}".encode())
    except OSError:
        return


def result(value: object, media_type: str | None = None) -> None:
    """Leaves the job's result, in place of one that it left before: bytes and text as they are, anything else as JSON.
    `media_type` says what the bytes are, as in `image/png`.

    Raises TypeError for what is neither and no JSON, and OSError when it cannot be written.
    """
    target = os.environ.get("GPUQ_RESULT_FILE")
    if target is None:
        return
    if isinstance(value, (bytes, bytearray, memoryview)):
        data, kind = bytes(value), media_type or "application/octet-stream"
    elif isinstance(value, str):
        data, kind = value.encode(), media_type or "text/plain; charset=utf-8"
    else:
        data, kind = _json(value), media_type or "application/json"
    _replace(f"{target}.type", kind.encode())
    _replace(target, data)


def short_result(text: object) -> None:
    """Leaves the job's short result, a text of at most 1024 bytes, which every listing has. Raises ValueError for a
    longer one, and OSError when it cannot be written."""
    target = os.environ.get("GPUQ_SHORT_RESULT_FILE")
    if target is None:
        return
    data = str(text).encode("utf-8", "replace")
    if len(data) > _LONGEST_SHORT:
        raise ValueError(f"a short result has at most {_LONGEST_SHORT} bytes, this one {len(data)}; use gpuq.result")
    _replace(target, data)


def checkpoint_dir() -> Path | None:
    """The folder that all attempts of the job share; None outside a job."""
    folder = os.environ.get("GPUQ_CHECKPOINT_DIR")
    if folder is None:
        return None
    from pathlib import Path

    return Path(folder)


def _quoted(text: str) -> str:
    """As JSON has it. The whole package would bring regular expressions with it: ten milliseconds."""
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii(text)


def _whole(name: str) -> int | None:
    text = os.environ.get(name)
    return None if text is None else int(text)


def _json(value: object) -> bytes:
    import json

    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"a result is bytes, text or what JSON can say ({error}); gpuq.Executor takes any Python value"
        ) from None


def _replace(target: str, data: bytes) -> None:
    """As a whole or not at all: somebody may look, or the job may be stopped, at any moment."""
    new = f"{target}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(new, target)
    except BaseException:
        os.unlink(new)
        raise
