"""Every file in tests/services is a plugin: the real servers that tests may ask for."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

# Where pytest runs in the background its shell has SIGINT ignored, and every process that tests interrupt would too.
signal.signal(signal.SIGINT, signal.default_int_handler)

_SERVICES = Path(__file__).parent / "services"
sys.path.insert(0, str(_SERVICES))

pytest_plugins = [path.stem for path in sorted(_SERVICES.glob("*.py"))]
