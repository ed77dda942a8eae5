"""What a machine is, from files laid out as Linux does, and what this one says."""

import subprocess
import sys

import pytest
import torch

from alexnet import machine
from alexnet.config import PROJECT_DIR

HARDWARE = {"processor": "Apple M1", "cores": 8, "memory_gb": 8.0, "cpu_capability": "NO AVX", "devices": []}


def laid_out(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 1e6),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 1e6),
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/cpu.max": "200000 100000\n",  # the group around it decides
                "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            },
            2,
        ),
    ],
)
def test_a_containers_quota_is_read(tmp_path, files, cores):
    assert machine.cgroup_cores(laid_out(tmp_path, files)) == cores


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_only_cores_that_this_process_may_use_count():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from alexnet.machine import available_cores; print(available_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_less_than_one_core_is_one(monkeypatch):
    monkeypatch.setattr(machine, "cgroup_cores", lambda root: 0.5)
    assert machine.available_cores() == 1


def repository(folder):
    """A repository of somebody with one commit."""
    commit = ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "one"]
    for words in (["init", "-q"], commit):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    words = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_a_commit_is_this_projects_own_or_none(tmp_path, monkeypatch):
    commit = repository(tmp_path)
    monkeypatch.setattr(machine, "PROJECT_DIR", tmp_path)
    assert machine.git_state() == {"commit": commit, "dirty": False}
    (tmp_path / "alexnet").mkdir()
    (tmp_path / "alexnet" / "new.py").touch()
    assert machine.git_state()["dirty"]
    inside = tmp_path / "site-packages"
    inside.mkdir()
    monkeypatch.setattr(machine, "PROJECT_DIR", inside)
    assert machine.git_state() == {"commit": None, "dirty": None}


def test_gits_own_variables_do_not_name_another_commit(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    repository(tmp_path / "theirs")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    monkeypatch.setattr(machine, "PROJECT_DIR", tmp_path)
    assert machine.git_state() == {"commit": None, "dirty": None}


def test_the_details_have_this_machine():
    lines = dict(machine.details())
    assert f"{machine.available_cores()} of " in lines["processor"]
    assert lines["torch"].startswith(torch.__version__.partition("+")[0])
    assert set(lines) == {"processor", "threads", "torch", "devices"}


def test_a_mac_is_told_that_its_gpu_is_not_used(monkeypatch):
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine, "hardware", lambda: HARDWARE)
    assert dict(machine.details())["devices"] == "no CUDA device: the CPU computes, not Apple's GPU"


def test_an_installation_without_a_checkout_says_where_things_are(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "home_dir", lambda: tmp_path)
    said = dict(machine.details())["package"]
    assert f"data and results are in {tmp_path}; the book is in the checkout" in said


def test_the_module_is_imported_without_torch():
    code = "import sys, alexnet.machine; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_hardware_is_what_committed_manifests_have():
    assert list(machine.hardware()) == ["processor", "cores", "memory_gb", "cpu_capability", "devices", "system"]
    assert machine.name_of(torch.device("cpu")) == "cpu"
    assert PROJECT_DIR == machine.PROJECT_DIR
