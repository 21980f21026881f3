"""`gpuq doctor` and other things called gpuq."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stub_daemon import Gpuq

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def own(gpuq: Gpuq) -> Gpuq:
    """As a user whose PATH begins with this environment, and who stands in a folder of his own."""
    gpuq.env |= {"GPUQ_GPUS": "sim:1", "PATH": f"{PROGRAMS}:{gpuq.env['PATH']}"}
    return gpuq


def installation(gpuq: Gpuq, *program: str) -> list[dict[str, Any]]:
    line = [*(program or [str(PROGRAMS / "gpuq")]), "doctor", "--json"]
    done = subprocess.run(line, env=gpuq.env, cwd=gpuq.work, capture_output=True, text=True, timeout=60, check=False)
    return [found for found in json.loads(done.stdout) if found["check"] == "installation"]


def distribution(folder: Path, name: str, **files: str) -> None:
    """What pip leaves in an environment about a distribution."""
    info = folder / f"{name}-1.5.6.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5.6\n")
    for file, text in files.items():
        (info / file).write_text(text)


def test_where_there_is_only_this_gpuq_all_is_well(own: Gpuq) -> None:
    [found] = installation(own)
    assert found["status"] == "ok"
    # A virtual environment, or anything else that is no package.
    (own.work / "gpuq" / "bin").mkdir(parents=True)
    assert installation(own) == [found]


@pytest.mark.parametrize(
    "files",
    [
        {"RECORD": "gpuq/__init__.py,sha256=x,1\ngpuq/core.py,sha256=x,1\n"},
        {"RECORD": "../../../bin/gpuq,sha256=x,1\nother.py,,\n"},
        {"RECORD": "other.py,,\n", "entry_points.txt": "[console_scripts]\ngpuq = other:main\n"},
    ],
    ids=["package", "script", "entry point"],
)
def test_another_distribution_with_our_package_or_command_is_a_failure(own: Gpuq, files: dict[str, str]) -> None:
    distribution(own.home / "packages", "gpuq", **files)
    own.env["PYTHONPATH"] = str(own.home / "packages")
    [found] = installation(own)
    assert found["status"] == "fail"
    assert "the distribution gpuq 1.5.6 in " in found["detail"]
    assert found["hint"] == "pip uninstall gpuq, then pip install --force-reinstall --no-deps gpu-job-queue"


def test_a_distribution_that_only_sounds_like_ours_is_none_of_our_business(own: Gpuq) -> None:
    distribution(own.home / "packages", "gpuqueue", RECORD="gpuqueue/__init__.py,,\n../../../bin/gpuqueue,,\n")
    own.env["PYTHONPATH"] = str(own.home / "packages")
    assert [found["status"] for found in installation(own)] == ["ok"]


def test_another_gpuq_that_comes_first_on_path_is_named(own: Gpuq) -> None:
    other = own.home / "other" / "gpuq"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    path = own.env["PATH"]
    own.env["PATH"] = f"{path}:{other.parent}"
    assert [found["status"] for found in installation(own)] == ["ok"]
    own.env["PATH"] = f"{other.parent}:{path}"
    [found] = installation(own)
    assert (found["status"], found["detail"]) == ("warn", f"`gpuq` in PATH is {other}, not {PROGRAMS / 'gpuq'}")


def test_a_link_on_path_to_this_gpuq_is_this_gpuq(own: Gpuq) -> None:
    (own.home / "links").mkdir()
    (own.home / "links" / "gpuq").symlink_to(PROGRAMS / "gpuq")
    own.env["PATH"] = f"{own.home / 'links'}:{own.env['PATH']}"
    assert [found["status"] for found in installation(own)] == ["ok"]
    assert [found["status"] for found in installation(own, "gpuq")] == ["ok"]
    assert [found["status"] for found in installation(own, sys.executable, "-m", "gpuq.cli")] == ["ok"]


@pytest.mark.parametrize("name", ["gpuq/__init__.py", "gpuq.py"])
def test_a_package_in_the_current_folder_that_python_would_import_instead_is_named(own: Gpuq, name: str) -> None:
    (own.work / name).parent.mkdir(exist_ok=True)
    (own.work / name).write_text("")
    [found] = installation(own)
    assert found["status"] == "warn"
    assert f"imports {own.work / name.removesuffix('/__init__.py')}, not this gpuq" in found["detail"]
