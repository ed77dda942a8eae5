"""The fuzzer itself: it notices a traceback, a crash, a hang and a control character, and nothing in a clear refusal."""

import importlib.util
import os
import signal
import time
from pathlib import Path

import pytest

from alexnet.config import UserError

SCRIPT = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
fuzz = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(fuzz)


def refuse(file):
    raise UserError("it is damaged")


def fail(file):
    return {}[file]


def crash(file):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(file):
    time.sleep(60)


def print_escapes(file):
    raise UserError("a\x1b[2J is damaged")


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (refuse, None),
        (fail, "KeyError"),
        (crash, "the process ended with -9"),
        (hang, "the process ended with -14"),
        (print_escapes, "control characters"),
    ],
)
def test_what_is_more_than_a_refusal_is_kept_with_its_reason(tmp_path, monkeypatch, capfd, read, why):
    monkeypatch.setitem(fuzz.KINDS, "tar files", (lambda: [b"a seed " * 100], read, 1.0))
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    count, failed = fuzz.fuzz("tar files", 0, tmp_path / "found", 0.3)
    assert count > 0
    assert (failed > 0) == (why is not None)
    if why is not None:
        assert why in (tmp_path / "found" / "why-000.txt").read_text()
        assert (tmp_path / "found" / "failed-000").stat().st_size > 0


def test_equal_seeds_damage_equally():
    one, other = ([fuzz.damaged(b"x" * 2000, fuzz.np.random.default_rng(s)) for s in (1, 2)] for _ in range(2))
    assert one == other
    assert one[0] != one[1] != b"x" * 2000
