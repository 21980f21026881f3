"""Every file in tests/services is a plugin: the real servers that tests may ask for. A test's tier is its folder's."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

# Where pytest runs in the background its shell has SIGINT ignored, and every process that tests interrupt would too.
signal.signal(signal.SIGINT, signal.default_int_handler)

_SERVICES = Path(__file__).parent / "services"
sys.path.insert(0, str(_SERVICES))

pytest_plugins = [path.stem for path in sorted(_SERVICES.glob("*.py"))]

# The longest folder that a test lies in decides. pyproject.toml says what the tiers are.
_TIERS = {
    "unit": "tier_fast",
    "unit/examples": "tier_integration",
    "conformance": "tier_fast",
    "docs": "tier_fast",
    "engine": "tier_fast",
    "process": "tier_integration",
    "cli": "tier_integration",
    "server": "tier_integration",
    "migration": "tier_integration",
    "daemon": "tier_system",
    "crash": "tier_system",
    "model": "tier_system",
    "chaos": "tier_system",
}


def _tier(path: Path) -> str:
    folder = path.relative_to(Path(__file__).parent).parent
    for name in (folder, *folder.parents):
        if str(name) in _TIERS:
            return _TIERS[str(name)]
    raise pytest.UsageError(f"tests/{folder} has no tier: add it to _TIERS in tests/conftest.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(_tier(item.path))
