"""Run by hatch at each build: notes in the package which commit it is made from, for `gpuq --version`, puts htmx,
which the page uses, beside its other files, and the manual pages into a wheel, for `man gpuq-submit`.

htmx comes out of the package `django-htmx`, a requirement of the build alone: its file is in no commit, and nothing is
fetched when the page is looked at. Where the right file stands already (an unpacked sdist, an earlier build) nothing is
needed.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HTMX = "gpuq/server/pages/static/htmx.js"
_HTMX_SHA256 = "28fae7bbe8e8142b702debb9d5234a9a436d9435a4b5165b195aa1a7ed840d25"


class RevisionHook(BuildHookInterface):
    """Adds the note to wheel and sdist alike, so that a wheel built from the sdist is the one built from the tree. The
    manual pages are written anew for each wheel."""

    folder: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        _provide_htmx(Path(self.root, HTMX))
        build_data["artifacts"].append(HTMX)
        if version == "editable":
            # The files stay where they are, and their commit changes.
            return
        self.folder = tempfile.mkdtemp()
        if self.target_name == "wheel":
            pages = _manual_pages(self.root, Path(self.folder, "man"))
            build_data["shared_data"].update({str(page): f"share/man/man1/{page.name}" for page in pages})
        revision = _revision_module(self.root)
        # In an unpacked sdist there is no git, only the note.
        found = revision.of_checkout(self.root) or revision.noted(str(Path(self.root, "gpuq")))
        if found is None:
            return
        note = Path(self.folder, revision.NOTE)
        note.write_text(found + "\n")
        build_data["force_include"][str(note)] = f"gpuq/{revision.NOTE}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder)


def _manual_pages(root: str, folder: Path) -> list[Path]:
    """From the tree that is built, in a process of its own: nothing of it stays behind in the one that builds."""
    program = "import sys; from pathlib import Path; import man; man.write(Path(sys.argv[1]))"
    paths = [root, str(Path(root, "scripts", "docs_build")), os.environ.get("PYTHONPATH", "")]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GPUQ_")}
    env |= {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", program, str(folder)], env=env, check=True)
    return sorted(folder.iterdir())


def _provide_htmx(path: Path) -> None:
    """Raises RuntimeError where neither the file nor the package that has it is the right one."""
    if path.is_file() and _is_htmx(path.read_bytes()):
        return
    try:
        found = importlib.resources.files("django_htmx").joinpath("static/django_htmx/htmx-4.min.js").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise RuntimeError(f"{path} is missing, and django-htmx 1.29, which has it, is not installed") from error
    if not _is_htmx(found):
        raise RuntimeError("django-htmx has another htmx than the one that the page was tested with: install 1.29.0")
    path.write_bytes(found)


def _is_htmx(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == _HTMX_SHA256


def _revision_module(root: str) -> ModuleType:
    """The one of the tree that is built, whatever gpuq may be installed."""
    spec = importlib.util.spec_from_file_location("gpuq_revision", Path(root, "gpuq", "revision.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
