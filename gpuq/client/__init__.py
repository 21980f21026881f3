"""The Python client: `from gpuq import Client`."""

from __future__ import annotations

from gpuq.client.client import Client as Client
from gpuq.client.client import LogChunk as LogChunk

__all__ = ["Client", "LogChunk"]
