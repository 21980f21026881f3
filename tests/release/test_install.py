"""The wheel in an empty virtual environment, on each supported Python that this machine has."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from distributions import CLEAN, Built

from gpuq import __version__

pytestmark = pytest.mark.release

SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]
OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"


def run(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """From a folder that has no `gpuq` in it."""
    line = [str(word) for word in words]
    return subprocess.run(
        line, env={**CLEAN, **more}, cwd="/", capture_output=True, text=True, timeout=100, check=False
    )


@cache
def python(version: str) -> Path:
    """An interpreter of that version; the test is skipped when there is none."""
    if version == OURS:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    known = [*pyenv.glob(f"{version}.*/bin/python"), *uv.glob(f"cpython-{version}.*/bin/python")]
    on_path = shutil.which(f"python{version}")
    for candidate in (*([Path(on_path)] if on_path else []), *known):
        # What pyenv puts on PATH only says that it is not the chosen version.
        asked = run(candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])")
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return candidate
    pytest.skip(f"there is no Python {version} on this machine")


@contextlib.contextmanager
def environment(version: str, wheel: Path, *options: str) -> Iterator[Path]:
    """The `bin` of a virtual environment with nothing but the wheel, and what pip installs for it."""
    interpreter = python(version)
    with tempfile.TemporaryDirectory(prefix="gq", dir="/tmp") as folder:
        made = run(interpreter, "-m", "venv", "--without-pip", folder)
        assert made.returncode == 0, made.stderr
        # With the pip of the tests, since making one for each environment takes seconds.
        quiet = ("-q", "--no-compile", "--disable-pip-version-check", "--no-input")
        into = (sys.executable, "-m", "pip", "--python", Path(folder, "bin", "python"))
        done = run(*into, "install", *quiet, *options, wheel)
        assert done.returncode == 0, done.stderr
        yield Path(folder, "bin")


@cache
def index_answers() -> bool:
    return run(sys.executable, "-m", "pip", "index", "versions", "sqlalchemy").returncode == 0


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_version_needs_no_dependency(version: str, built: Built) -> None:
    with environment(version, built.wheel, "--no-deps") as programs:
        done = run(programs / "gpuq", "--version")
        assert (done.returncode, done.stdout) == (0, f"gpuq {__version__} ({built.commit})\n"), done.stderr


@pytest.mark.redis
@pytest.mark.parametrize("version", SUPPORTED)
def test_a_job_runs_from_the_installed_wheel(version: str, built: Built, redis_server_path: str) -> None:
    python(version)
    ours = version == OURS
    if not ours and not index_answers():
        pytest.skip(f"no package index answers, and the dependencies for Python {version} are not here")
    with environment(version, built.wheel, *(["--no-deps"] if ours else [])) as programs:
        if ours:
            # The dependencies that are installed for the tests. Not their editable gpuq: its own .pth file is not
            # read in a folder that is named by another one.
            packages = next((programs.parent / "lib").glob("python*")) / "site-packages"
            (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        one_job(programs)


def one_job(programs: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="gq", dir="/tmp") as home:
        settings = {
            "GPUQ_HOME": home, "GPUQ_GPUS": "sim:1", "GPUQ_CONFIG": f"{home}/none.toml",
            "PATH": f"{programs}:{CLEAN['PATH']}",
        }  # fmt: skip
        Path(home, "none.toml").write_text("")
        up = run(programs / "gpuq", "up", "-d", **settings)
        try:
            assert up.returncode == 0, up.stdout + up.stderr
            done = run(
                programs / "gpuq",
                "run",
                "-g",
                "1",
                "--retries",
                "0",
                "--",
                "sh",
                "-c",
                "echo $GPUQ_GPU_COUNT; exit 3",
                **settings,
            )
            assert (done.returncode, done.stdout) == (3, "1\n"), done.stderr
            doctor = run(programs / "gpuq", "doctor", **settings)
            assert f"gpuq {__version__} in {programs.parent}" in doctor.stdout, doctor.stdout
        finally:
            down = run(programs / "gpuq", "down", "--stop-jobs", **settings)
        assert down.returncode == 0, down.stderr
