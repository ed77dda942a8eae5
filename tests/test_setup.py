"""What a stranger meets first: the Makefile, the environment, the top of the repository."""

import os
import re
import shutil
import subprocess
import tomllib
from functools import lru_cache
from importlib import metadata

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from alexnet.config import PROJECT_DIR

TARGETS = [
    "help",
    "setup",
    "plan",
    "reproduce",
    "book",
    "pdf",
    "serve",
    "test",
    "check",
    "bench",
    "baseline",
    "rehearse",
    "kills",
]
TARGETS += ["fuzz", "clean"]
PROJECT = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["project"]
MINORS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"]]
PINS = [Requirement(line) for line in (PROJECT_DIR / "constraints.txt").read_text().splitlines() if not line.startswith("#")]

# Stands in for Python: `-m venv` makes an environment with itself in it, and every call of pip is noted in calls.
STUB = """#!/bin/sh
case "$*" in
  *"-m venv"*) echo venv >> calls; test -z "$NO_VENV" || exit 1; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  *"-m alexnet train"* | *book/make.py*) echo "${ALEXNET_RUNS:-recorded}" >> calls ;;
  *"-m pip install"*) echo pip >> calls; test -z "$PIP_SAYS" || { echo "ERROR: $PIP_SAYS" >&2; exit 1; } ;;
  *version_info*) exit TOO_OLD ;;
  *print*) echo VERSION ;;
esac
"""


def make(*words, folder=PROJECT_DIR, **variables):
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "ALEXNET_PYTHON", "MAKEFLAGS")}
    return subprocess.run(["make", *words], capture_output=True, text=True, cwd=folder, env=env | variables)


@pytest.fixture
def checkout(tmp_path):
    """A folder with what `make setup` reads, and two interpreters that only pretend."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT_DIR / name, tmp_path)
    for name, version, too_old in (("one", "3.11.2", "0"), ("two", "3.13.0", "0"), ("old", "3.9.1", "1")):
        (tmp_path / name).write_text(STUB.replace("VERSION", version).replace("TOO_OLD", too_old))
        (tmp_path / name).chmod(0o755)
    return tmp_path


def calls(folder):
    """What was done since the last look."""
    file = folder / "calls"
    words = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return words


def test_make_alone_prints_every_target_with_one_line():
    done = make()
    assert done.returncode == 0
    assert re.findall(r"^  make (\w+) +\S", done.stdout, re.M) == TARGETS
    assert "SCALE=toy|small|paper" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 125


def test_the_environment_is_made_once_and_again_only_for_other_pins_or_another_python(checkout):
    assert make("setup", "PYTHON=./one", folder=checkout).returncode == 0
    assert calls(checkout) == ["venv", "pip"]
    make("setup", "PYTHON=./one", folder=checkout)
    make("setup", folder=checkout)  # keeps the Python that the environment has
    assert calls(checkout) == []
    with (checkout / "constraints.txt").open("a") as file:
        file.write("another==1.0\n")
    make("setup", folder=checkout)
    assert calls(checkout) == ["pip"]
    make("setup", "PYTHON=./two", folder=checkout)
    assert calls(checkout) == ["venv", "pip"]
    make("setup", folder=checkout)
    assert calls(checkout) == []


def test_a_failed_installation_shows_pips_reason_and_is_tried_again(checkout):
    done = make("setup", "PYTHON=./one", folder=checkout, PIP_SAYS="No matching distribution found for torch")
    assert done.returncode != 0
    assert "ERROR: No matching distribution found for torch" in done.stderr
    assert calls(checkout) == ["venv", "pip"]
    assert make("setup", "PYTHON=./one", folder=checkout).returncode == 0
    assert calls(checkout) == ["pip"]


def test_without_the_module_venv_nothing_is_installed(checkout):
    assert make("setup", "PYTHON=./one", folder=checkout, NO_VENV="1").returncode != 0
    assert calls(checkout) == ["venv"]


def test_a_python_that_is_too_old_is_one_line_that_says_what_to_type(checkout):
    done = make("test", "PYTHON=./old", folder=checkout)
    assert done.returncode != 0
    assert "error: Python 3.11 or newer is needed; say which: make PYTHON=python3.12 test" in done.stdout
    assert calls(checkout) == []


def test_an_environment_of_ones_own_is_used_as_it_is(checkout):
    assert make("setup", "ALEXNET_PYTHON=./one", folder=checkout).returncode == 0
    assert calls(checkout) == []
    (checkout / "one").write_text("#!/bin/sh\nexit 1\n")
    done = make("setup", "ALEXNET_PYTHON=./one", folder=checkout)
    assert done.returncode != 0
    assert "./one -m pip install --constraint constraints.txt --editable ." in done.stdout


@pytest.mark.parametrize(("fresh", "folder"), [("1", "runs-fresh"), ("0", ""), ("", "")])
def test_fresh_trains_and_builds_the_book_in_a_folder_beside_the_records(checkout, fresh, folder):
    done = make("reproduce", "PYTHON=./one", f"FRESH={fresh}", folder=checkout, ALEXNET_RUNS="")
    assert done.returncode == 0, done.stderr
    assert calls(checkout)[2:] == [str(checkout / folder) if folder else "recorded"] * 2


def test_windows_is_told_of_wsl(checkout):
    done = make("setup", folder=checkout, OS="Windows_NT")
    assert done.returncode != 0
    assert "Inside WSL" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("home", ["", "/proc/nowhere"])
def test_a_home_that_is_no_folder_is_replaced(checkout, home, tmp_path):
    done = make("setup", "PYTHON=./one", folder=checkout, HOME=home, TMPDIR=str(tmp_path / "temporary"))
    assert done.returncode == 0
    assert (tmp_path / "temporary" / f"alexnet-{os.getuid()}").is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who may not write here")
def test_in_a_checkout_that_may_not_be_written_to_a_copy_is_used(checkout):
    cache = checkout / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    (checkout / "alexnet").mkdir()
    (checkout / "alexnet" / "old.py").touch()
    for folder in [checkout, *checkout.parents]:
        if folder.owner() == "root" and "pytest-of" in str(folder):
            folder.chmod(0o755)
    stranger = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    env = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(cache)}
    words = [*stranger, "make", "setup", "PYTHON=./one"]
    subprocess.run(words, capture_output=True, cwd=checkout, env=env, check=True)
    (checkout / "alexnet" / "old.py").rename(checkout / "alexnet" / "new.py")
    done = subprocess.run(words, capture_output=True, text=True, cwd=checkout, env=env)
    assert done.returncode == 0, done.stderr
    assert "This folder may not be written to" in done.stdout
    (copy,) = (cache / "alexnet").iterdir()
    assert (copy / ".venv" / "pins").is_file()
    assert [file.name for file in (copy / "alexnet").iterdir()] == ["new.py"]
    assert not (checkout / ".venv").exists()


def machines():
    """Every version of Python that is supported, and some that are still to come, on Linux; the first ones on macOS."""
    linux = [(f"{minor}.{patch}", "linux", "x86_64") for minor in MINORS for patch in range(12)]
    return linux + [(f"{minor}.0", "darwin", "arm64") for minor in MINORS]


@lru_cache(None)
def installed(name):
    """Version, versions of Python, and requirements of a package that is installed; None for one that is not."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    needs = [Requirement(line) for line in found.requires or ()]
    return found.version, SpecifierSet(found.metadata.get("Requires-Python", "")), needs


@lru_cache(None)
def holds(marker, environment):
    """Whether a marker holds in an environment; many packages have the same ones."""
    return Marker(marker).evaluate(dict(environment))


def needed(environment):
    """Yield every requirement of the project that holds in an environment, and of what it requires."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    queue, seen = [Requirement(line) for group in groups for line in group], set()
    while queue:
        requirement = queue.pop()
        yield requirement
        for extra in requirement.extras or {""}:
            key = canonicalize_name(requirement.name), extra
            known = installed(key[0])
            if key not in seen and known is not None:
                where = environment | {"extra": extra}
                queue += [r for r in known[2] if r.marker is None or holds(str(r.marker), tuple(where.items()))]
            seen.add(key)


@pytest.mark.parametrize(("python", "system", "processor"), machines())
def test_every_pin_has_a_release_for_this_python(python, system, processor):
    """By the markers of the file, and by what the installed releases say of themselves."""
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    environment = {
        "python_version": python.rpartition(".")[0], "python_full_version": python, "implementation_name": "cpython",
        "sys_platform": system, "platform_machine": processor, "platform_system": system.title(),
    }  # fmt: skip
    pins = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in pins, f"two pins of {name} hold"
            pins[name] = str(pin.specifier).removeprefix("==")
    for requirement in needed(environment):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement} is pinned at {pins[name]}"
        known = installed(name)
        if known is not None and known[0] == pins[name]:
            assert known[1].contains(python), f"{name} {known[0]} needs Python {known[1]}"


def test_what_is_installed_here_are_the_pins():
    for requirement in map(Requirement, PROJECT["dependencies"]):
        pins = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        version = metadata.version(requirement.name)
        assert any(pin.specifier.contains(version) for pin in pins), f"{requirement.name} {version}"


def test_conda_installs_from_the_same_source():
    text = (PROJECT_DIR / "environment.yml").read_text()
    assert "--constraint constraints.txt" in text
    assert "--editable ." in text
    assert "torch" not in text


def test_the_imports_go_in_one_direction():
    """Design: rooms. What is not named here is low: anyone may import it, and it imports none of these."""
    level = {
        "preprocessing": 1, "model": 1, "paper": 2, "training": 2, "pictures": 3, "experiments": 4, "report": 5, "bench": 5,
        "cli": 6, "__init__": 6, "__main__": 7,
    }  # fmt: skip
    for file in sorted((PROJECT_DIR / "alexnet").rglob("*.py")):
        room = file.relative_to(PROJECT_DIR / "alexnet").parts[0].removesuffix(".py")
        for other in re.findall(r"^\s*from alexnet\.(\w+)[\w.]* import", file.read_text(), re.M):
            allowed = other == room or other not in level or level[other] < level.get(room, 0)
            assert allowed, f"{file.relative_to(PROJECT_DIR)} imports {other}"


def test_the_readme_is_short_and_its_files_exist():
    text = (PROJECT_DIR / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src(?:set)?="([^"]+)"', text):
        assert target.startswith("http") or (PROJECT_DIR / target).exists(), target
