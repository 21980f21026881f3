"""A database as the benchmark of growth makes it, small: a year of jobs of many users, groups and names."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

MAKER = Path(__file__).parents[2] / "scripts" / "benchmarks" / "growth_database.py"
NOW = 1_800_000_000.0


@pytest.fixture(scope="session")
def growth_database() -> ModuleType:
    spec = importlib.util.spec_from_file_location("growth_database", MAKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["growth_database"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def grown_template(growth_database: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = growth_database.Size(finished=3000, waiting=300)
    path: Path = growth_database.make(tmp_path_factory.mktemp("grown"), size, now=NOW)
    return path


@pytest.fixture
def grown_url(grown_template: Path, tmp_path: Path) -> str:
    """A copy of its own, SQLite."""
    path = tmp_path / "gpuq.db"
    shutil.copy(grown_template, path)
    return f"sqlite:///{path}"
