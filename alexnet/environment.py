"""Make the environment that `make` runs in, with nothing but Python's standard library.

    python3 alexnet/environment.py

An active environment (venv or conda) that already holds every pinned version is used as it is; otherwise `.venv` is made,
or brought to the pins. The path of the interpreter to use is left in `.make/python`. A second call installs nothing.
pyproject.toml says what is needed, constraints.txt says which version of each.
"""

import hashlib
import importlib.util
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[1]


def pins() -> dict[str, str]:
    """Return name -> version of every line of constraints.txt."""
    lines = (PROJECT_DIR / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def active_is_complete() -> bool:
    """Return whether the running interpreter is an environment that has this project and every pinned version it needs."""
    if sys.prefix == sys.base_prefix and not (Path(sys.prefix) / "conda-meta").is_dir():
        return False
    wanted = pins()
    spec = importlib.util.find_spec("alexnet")
    if spec is None or Path(spec.origin or "").parent != PROJECT_DIR / "alexnet":
        return False
    try:
        needed = {_bare_name(line) for line in metadata.requires("alexnet") or ()}
        return all(metadata.version(name) == wanted[name] for name in needed)
    except (metadata.PackageNotFoundError, KeyError):
        return False


def make_venv(folder: Path) -> Path:
    """Bring the virtual environment `folder` to the pins, unless it is there already; return its interpreter."""
    python = folder / "bin" / "python"
    sources = [(PROJECT_DIR / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    state = hashlib.sha256(b"".join(sources)).hexdigest()
    installed = folder / "installed"
    if python.exists() and installed.is_file() and installed.read_text() == state:
        return python
    print(f"Making the environment {folder} (once; torch alone is several GB) ...", flush=True)
    _run([sys.executable, "-m", "venv", str(folder)], "On Debian and Ubuntu: apt install python3-venv")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraint = str(PROJECT_DIR / "constraints.txt")
    command = [*pip, "--constraint", constraint, "--editable", str(PROJECT_DIR)]
    _run(command, "Is a package index reachable? Repeat the command.")
    installed.write_text(state)
    return python


def _run(command: list[str], advice: str) -> None:
    if subprocess.run(command).returncode != 0:
        sys.exit(f"error: `{' '.join(command)}` failed. {advice}")


def _bare_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return match.group().lower()


def main() -> None:
    """Find or make the environment and note its interpreter."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this file is what a too old Python meets first)
        sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}. Name another: make PYTHON=...")
    python = Path(sys.executable) if active_is_complete() else make_venv(PROJECT_DIR / ".venv")
    note = PROJECT_DIR / ".make" / "python"
    note.parent.mkdir(exist_ok=True)
    note.write_text(f"{python}\n")


if __name__ == "__main__":
    main()
