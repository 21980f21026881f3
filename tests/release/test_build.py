"""What is in the distributions, and that the same commit gives the same bytes."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from distributions import CLEAN, ROOT, Built, build, commit_all, git

from gpuq import __version__
from gpuq.cli.parse.command_table import COMMANDS
from gpuq.cli.shadows import DISTRIBUTION

pytestmark = pytest.mark.release


def members(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_tree_elsewhere_gives_the_same_bytes_as_the_sdist(built: Built, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(built.tree), "tree")
    build(tmp_path / "tree", tmp_path / "dist", "--sdist", "--wheel", umask=0o077)
    for first in (built.sdist, built.wheel):
        assert (tmp_path / "dist" / first.name).read_bytes() == first.read_bytes(), first.name


def test_the_wheel_has_the_whole_package_and_the_migrations_and_nothing_else(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    tracked = git(built.tree, "ls-files", "gpuq", "migrations").splitlines()
    expected = {re.sub("^migrations/", "gpuq/_migrations/", name) for name in tracked} | {"gpuq/_revision.txt"}
    # Added by the build, as the note is.
    expected.add("gpuq/server/pages/static/htmx.js")
    assert {
        name for name in names if ".dist-info/" not in name and ".data/data/share/man/man1/" not in name
    } == expected
    assert {Path(name).suffix for name in expected} >= {".py", ".lua"}
    assert any(name.startswith("gpuq/_migrations/versions/") for name in names)


def test_the_wheel_has_the_manual_page_of_every_command(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    pages = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    expected = {"gpuq", *(f"gpuq-{name.replace(' ', '-')}" for name in COMMANDS)}
    assert pages == {f"share/man/man1/{page}.1" for page in expected}


def test_the_sdist_has_all_that_the_tests_and_the_next_build_need(built: Built) -> None:
    names = members(built.sdist)
    kept = ["gpuq", "migrations", "tests", "scripts", "README.md", "CHANGELOG.md", "LICENSE"]
    for name in git(built.tree, "ls-files", *kept).splitlines():
        assert name in names
    assert {"pyproject.toml", "PKG-INFO", "gpuq/_revision.txt"} <= names


def test_both_note_the_commit_that_they_were_built_from(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        assert wheel.read("gpuq/_revision.txt").decode() == f"{built.commit}\n"
    with tarfile.open(built.sdist) as sdist:
        note = sdist.extractfile(f"{built.sdist.name.removesuffix('.tar.gz')}/gpuq/_revision.txt")
        assert note is not None
        assert note.read().decode() == f"{built.commit}\n"


def test_name_and_version_are_those_of_the_package(built: Built) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(built.wheel) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == project["name"] == DISTRIBUTION
    assert metadata["Version"] == __version__
    assert "version" in project["dynamic"]


def test_the_version_has_its_section_in_the_changelog() -> None:
    sections = re.findall(r"^## \[(.+?)\]( - \d{4}-\d\d-\d\d)?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    named = "Unreleased" if ".dev" in __version__ else __version__
    assert named in {name for name, _ in sections}
    assert all(bool(date) == (name != "Unreleased") for name, date in sections)


def test_every_hint_to_install_an_extra_names_this_distribution_and_an_extra_that_is_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [path.read_text() for path in (*ROOT.glob("gpuq/**/*.py"), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))]
    found = [match for text in texts for match in re.findall(r"pip install (?:-e )?['\"]([\w.-]+)\[(\w+)\]", text)]
    assert len(found) >= 5
    for name, extra in found:
        assert name in {DISTRIBUTION, "."}, name
        assert extra in extras


@pytest.fixture
def clone(built: Built, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(built.tree), "clone")
    return tmp_path / "clone"


def release(clone: Path) -> subprocess.CompletedProcess[str]:

    env = {**CLEAN, "PYTHON": sys.executable}
    return subprocess.run(
        [str(clone / "scripts" / "release")], env=env, capture_output=True, text=True, timeout=100, check=False
    )


def test_a_release_is_built_from_a_clean_tree_and_what_is_next_is_said(clone: Path) -> None:
    version = clone / "gpuq" / "__init__.py"
    version.write_text(version.read_text().replace(__version__, "7.0.0"))
    changes = clone / "CHANGELOG.md"
    changes.write_text(changes.read_text().replace("## [Unreleased]", "## [7.0.0] - 2030-01-31"))
    commit_all(clone)
    done = release(clone)
    assert done.returncode == 0, done.stderr
    assert "git tag -a v7.0.0" in done.stdout
    assert sorted(path.name for path in (clone / "dist").iterdir()) == [
        "gpu_job_queue-7.0.0-py3-none-any.whl",
        "gpu_job_queue-7.0.0.tar.gz",
    ]
    assert git(clone, "status", "--porcelain") == ""


def test_a_release_that_the_changelog_does_not_know_is_refused(clone: Path) -> None:
    version = clone / "gpuq" / "__init__.py"
    version.write_text(version.read_text().replace(__version__, "7.0.0"))
    commit_all(clone)
    done = release(clone)
    assert (done.returncode, (clone / "dist").exists()) == (1, False)
    assert "CHANGELOG.md has no line '## [7.0.0] - DATE'" in done.stderr


def test_a_release_of_what_is_not_committed_is_refused(clone: Path) -> None:
    (clone / "gpuq" / "forgotten.py").write_text("")
    done = release(clone)
    assert (done.returncode, (clone / "dist").exists()) == (1, False)
    assert "gpuq/forgotten.py" in done.stderr
