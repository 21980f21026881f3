"""Every file in tests/services is a plugin: the real servers that tests may ask for. A test's tier is its folder's, and
no test sees the settings of this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Where pytest runs in the background its shell has SIGINT ignored, and every process that tests interrupt would too.
signal.signal(signal.SIGINT, signal.default_int_handler)

_SERVICES = Path(__file__).parent / "services"
sys.path.insert(0, str(_SERVICES))

pytest_plugins = [path.stem for path in sorted(_SERVICES.glob("*.py"))]

# Steers the tests themselves; everything else with our prefix is a setting of some daily use.
_STEERING = frozenset({"GPUQ_REQUIRE_SERVICES"})


@pytest.fixture(scope="session", autouse=True)
def _settings_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty config file, a home with nothing in it and no variable of ours: for the tests and for what they start.

    For the whole session, because fixtures of modules start processes too. Without GPUQ_CONFIG root would read
    /etc/gpuq/config.toml, so whoever starts a process with an environment of its own hands that variable on.
    """
    home = tmp_path_factory.mktemp("nobody")
    empty = home / "config.toml"
    empty.touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GPUQ_") and name not in _STEERING]:
            patch.delenv(name)
        patch.setenv("GPUQ_CONFIG", str(empty))
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
        (home / "state").mkdir()
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        yield


# The longest folder that a test lies in decides. pyproject.toml says what the tiers are.
_TIERS = {
    "": "tier_fast",
    "unit": "tier_fast",
    "bench": "tier_fast",
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
    "security": "tier_system",
    "browser": "tier_system",
    "model": "tier_system",
    "chaos": "tier_system",
    "release": "tier_system",
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
