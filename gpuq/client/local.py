"""No daemon: the same calls, served by a child process straight from the database of this home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping

from gpuq.client.transport import Reply
from gpuq.errors import ConfigError, GpuqError, Refused, Unavailable


class PipeTransport:
    """A line of JSON each way: {"method","path","query","headers","body"} → {"status","headers","body"}.

    A child process, because the client itself must not import the database layer.
    """

    def __init__(self, argv: list[str] | None = None) -> None:
        # Closed in close(), after the child.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._lock = threading.Lock()
        self._child = subprocess.Popen(
            # -P: a redis.py in the directory where a command is typed is not the library.
            argv or [sys.executable, "-P", "-m", "gpuq.server", "direct"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Ctrl-C is for the command, which decides what becomes of the request under way.
            process_group=0,
        )

    def listen(self, target: str, headers: Mapping[str, str]) -> None:
        """Nothing moves by itself without a daemon."""

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, fresh: bool = False
    ) -> Reply:
        path, _, query = target.partition("?")
        asked = {"method": method, "path": path, "query": query, "headers": dict(headers), "body": body.decode()}
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with self._lock:
            try:
                self._child.stdin.write(json.dumps(asked).encode() + b"\n")
                self._child.stdin.flush()
                line = self._child.stdout.readline()
            except BrokenPipeError:
                line = b""
            except BaseException:
                # A Ctrl-C before the answer came: it must not be taken for the next one.
                self._child.kill()
                raise
        if not line.endswith(b"\n"):
            raise self._failure()
        answer = json.loads(line)
        headers_back = {name.lower(): value for name, value in answer["headers"].items()}
        # A log may hold bytes that are no text; they travel as lone surrogates.
        return Reply(answer["status"], headers_back, answer["body"].encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        self._child.wait()
        self._errors.close()

    def _failure(self) -> GpuqError:
        """What the child said on its way out, as an error with its own exit code."""
        code = self._child.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        if os.environ.get("GPUQ_DEBUG"):
            sys.stderr.write("\n".join(lines) + "\n")
        said = [line.removeprefix("gpuq: ") for line in lines if line.startswith("gpuq: ")]
        hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
        last = lines[-1] if lines else f"it ended with code {code}"
        kind = {2: ConfigError, 4: Refused, 5: Unavailable}.get(code, GpuqError)
        return kind(
            said[-1] if said else f"working on the database without a daemon failed: {last}",
            hint=hints[-1] if hints else "`gpuq doctor` looks into it",
        )
