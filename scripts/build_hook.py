"""Run by hatch at each build: notes in the package which commit it is made from, for `gpuq --version`, and puts the
manual pages into a wheel, for `man gpuq-submit`."""

from __future__ import annotations

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


class RevisionHook(BuildHookInterface):
    """Adds the note to wheel and sdist alike, so that a wheel built from the sdist is the one built from the tree. The
    manual pages are written anew for each wheel."""

    folder: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
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


def _revision_module(root: str) -> ModuleType:
    """The one of the tree that is built, whatever gpuq may be installed."""
    spec = importlib.util.spec_from_file_location("gpuq_revision", Path(root, "gpuq", "revision.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
