"""Every file in tests/services is a plugin: the real servers that tests may ask for."""

from __future__ import annotations

import sys
from pathlib import Path

_SERVICES = Path(__file__).parent / "services"
sys.path.insert(0, str(_SERVICES))

pytest_plugins = [path.stem for path in sorted(_SERVICES.glob("*.py"))]
