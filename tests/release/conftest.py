"""Makes what distributions.py builds available to the tests of this directory."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from distributions import built, folder

__all__ = ["built", "folder"]
