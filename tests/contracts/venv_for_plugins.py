"""A virtual environment of its own for one plugin, that borrows all else from the one that runs the tests."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path


class Venv:
    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        (packages,) = folder.glob("lib/python*/site-packages")
        lenders = [path for path in sys.path if path.endswith("-packages")]
        # addsitedir and not a plain path, so that what is installed editable there is seen too.
        lines = [f"import site; site.addsitedir({path!r})\n" for path in lenders]
        (packages / "borrowed.pth").write_text("".join(lines))

    def install(self, project: Path) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [sys.executable, "-m", "pip", "--python", self.python, "install", "-q", "--no-deps"]
        return self._run([*command, "--no-build-isolation", "--no-index", project])

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self._run([self.python, *arguments], cwd)

    def htcgrid(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("-c", "from htcgrid.cli import main; main()", *arguments, cwd=cwd)

    @staticmethod
    def _run(command: Sequence[str | Path], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done
