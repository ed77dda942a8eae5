"""How the kernels in C are compiled, kept and left out."""

import pytest

from alexnet.model.kernels import build


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """`library` in a home directory where nothing is compiled yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return build.library.__wrapped__


def test_the_kernels_can_be_left_out(fresh, monkeypatch):
    monkeypatch.setenv("ALEXNET_COMPILE", "0")
    assert fresh() == (None, "ALEXNET_COMPILE is 0")


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_there_are_no_kernels_and_it_is_said_why(fresh, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    kernels, why = fresh()
    assert kernels is None
    assert compiler in why
    assert "\n" not in why


def test_a_compiler_is_asked_once_and_again_for_other_flags(fresh, monkeypatch, tmp_path):
    if build.why_not():
        pytest.skip(f"nothing can be compiled here: {build.why_not()}")
    assert fresh()[0] is not None
    monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert fresh()[0] is not None
    (made,) = (tmp_path / ".cache" / "alexnet").iterdir()
    assert made.suffix == ".so"
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-Wall"))
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        fresh()


def test_a_compiler_without_threads_or_this_cpus_instructions_will_do(fresh, monkeypatch, tmp_path):
    if build.why_not():
        pytest.skip(f"nothing can be compiled here: {build.why_not()}")
    plain = tmp_path / "plain-cc"
    plain.write_text('#!/bin/sh\ncase "$*" in *-march=native*|*-fopenmp*) exit 1;; esac\nexec cc "$@"\n')
    plain.chmod(0o755)
    monkeypatch.setenv("CC", str(plain))
    kernels, why = fresh()
    assert why is None
    assert kernels.normalise_across.argtypes
