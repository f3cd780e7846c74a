"""A new virtual environment with some wheels and third-party libraries by path, and nothing of this repository."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path, quiet: bool = False, **variables: str) -> None:
    """Run a program, and exit if it fails. With `quiet`, its output is shown only then."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=quiet, text=True)
    if done.returncode:
        sys.exit(f"{(done.stdout or '') + (done.stderr or '')}\nfailed: {' '.join(map(str, command))}")


def build_distributions(folder: Path) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it.

    RETURNS (tuple[Path, Path]): The source distribution and the wheel.
    """
    run(sys.executable, "-m", "build", "--outdir", folder, REPOSITORY, cwd=folder.parent, quiet=True)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def make_environment(place: Path, *wheels: Path) -> Path:
    """Install wheels without their dependencies into a new environment in `place`/env.

    RETURNS (Path): Its Python.
    """
    venv.create(place / "env", with_pip=False)
    inside = {"base": str(place / "env"), "platbase": str(place / "env")}
    python = Path(sysconfig.get_path("scripts", "venv", inside), "python")
    install = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index")
    run(*install, *wheels, cwd=place)
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    target = Path(sysconfig.get_path("purelib", "venv", inside), "third_party.pth")
    target.write_text("\n".join(libraries) + "\n", encoding="utf8")
    return python
