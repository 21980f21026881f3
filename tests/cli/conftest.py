"""Makes the stand-in daemon of stub_daemon.py available to the tests of this directory."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from stub_daemon import daemon, gpuq, home

__all__ = ["daemon", "gpuq", "home"]
