"""The job behind `gpuq.lease`: holds GPUs for a process outside the queue, for as long as that one wants them or lives.

A program of its own (`python -I -S holder.py NAME`), with the standard library alone: it is a job's whole start-up
time. It calls the process under its abstract Unix socket, which only that process can listen on, says what the job was
given, and waits for the end of the connection. That comes when the other side closes it, and by the kernel's hand when
the last process that has it is dead.
"""

from __future__ import annotations

import json
import os
import socket
import sys

# What the other process is told of this job's environment.
TOLD = ("CUDA_VISIBLE_DEVICES", "GPUQ_GPUS", "GPUQ_JOB_ID", "GPUQ_TIME_LIMIT_END")


def hold(name: str) -> int:
    """Returns the exit code: 0 at the end of the connection, 1 where nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"\0{name}")
            told = {key: os.environ[key] for key in TOLD if key in os.environ}
            connection.sendall(json.dumps(told).encode() + b"\n")
            while connection.recv(4096):
                pass
        except OSError as error:
            sys.stderr.write(f"gpuq: the process that these GPUs are for is gone: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(hold(sys.argv[1]))
