"""What a stranger meets first: the Makefile, the environment, the top of the repository."""

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest

from alexnet import environment
from alexnet.config import PROJECT_DIR

TARGETS = ["help", "setup", "plan", "reproduce", "book", "serve", "test", "check", "bench", "clean"]


def make(*words, **variables):
    return subprocess.run(["make", *words], capture_output=True, text=True, cwd=PROJECT_DIR, env=os.environ | variables)


def test_make_alone_prints_every_target_with_one_line():
    done = make()
    assert done.returncode == 0
    assert re.findall(r"^  make (\w+) +\S", done.stdout, re.M) == TARGETS
    assert "SCALE=toy|cpu|paper" in done.stdout


def test_every_version_that_is_needed_is_fixed():
    pins = environment.pins()
    lines = (PROJECT_DIR / "constraints.txt").read_text().splitlines()
    assert len(pins) == sum("==" in line for line in lines) > 100
    for requirement in metadata.requires("alexnet"):
        name = environment._bare_name(requirement)
        assert metadata.version(name) == pins[name], name


def test_conda_installs_from_the_same_source():
    text = (PROJECT_DIR / "environment.yml").read_text()
    assert "--constraint constraints.txt" in text
    assert "--editable ." in text
    assert "torch" not in text


def test_an_active_environment_with_the_pins_is_used_as_it_is(monkeypatch):
    wrong_pins = dict.fromkeys(environment.pins(), "0")
    assert environment.active_is_complete() == (sys.prefix != sys.base_prefix)
    monkeypatch.setattr(environment, "pins", lambda: wrong_pins)
    assert not environment.active_is_complete()


def test_a_complete_environment_is_not_installed_again(tmp_path, monkeypatch):
    calls = []

    def install(command, advice):
        calls.append(command)
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / "python").touch()

    monkeypatch.setattr(environment, "_run", install)
    for _ in range(2):
        assert environment.make_venv(tmp_path) == tmp_path / "bin" / "python"
    assert len(calls) == 2, "one to make the venv, one to install, none the second time"
    (tmp_path / "installed").write_text("of other pins")
    environment.make_venv(tmp_path)
    assert len(calls) == 4


def test_a_failed_installation_is_one_line_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(SystemExit, match=r"error: .*venv.* failed"):
        environment.make_venv(tmp_path)
    assert not (tmp_path / "installed").exists()


def test_the_imports_go_in_one_direction():
    """config, randomness <- preprocessing, model <- training <- claims <- cli (design: rooms)."""
    level = {"preprocessing": 1, "model": 1, "training": 2, "claims": 3, "cli_train": 4, "bench": 4, "cli": 5, "__init__": 5}
    for file in sorted((PROJECT_DIR / "alexnet").rglob("*.py")):
        room = file.relative_to(PROJECT_DIR / "alexnet").parts[0].removesuffix(".py")
        for other in re.findall(r"^\s*from alexnet\.(\w+)[\w.]* import", file.read_text(), re.M):
            if other != room and room != "__main__":
                assert level.get(other, 0) == 0 or level[other] < level[room], f"{file.name} imports {other}"


def test_the_readme_is_short_and_its_files_exist():
    text = (PROJECT_DIR / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (PROJECT_DIR / target).exists(), target
