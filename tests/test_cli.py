import re
import subprocess
import sys

import pytest

import alexnet
from alexnet import cli
from alexnet.claims import runs


def run(capsys, *words):
    """Return (exit status, standard output, standard error) of the command."""
    status = 0
    try:
        cli.main(list(words))
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    if isinstance(status, str):
        status, err = 1, err + status
    return status, out, err


def test_help_lists_the_commands_and_each_teaches_by_example(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for command in ("plan", "prepare", "train", "evaluate", "export", "compare", "doctor"):
        assert command in out
        status, text, _ = run(capsys, command, "--help")
        assert status == 0
        assert "usage: alexnet" in text
        if command not in ("plan", "doctor"):
            assert f"\n  alexnet {command} " in text, "no example"


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("plann",), "did you mean 'plan'"),
        (("plan", "--scal", "toy"), "--scale"),
        (("train", "fig1-relu", "--variant", "19pct-relu-rate-0.004", "--rat", "1"), "--rate"),
        (("train", "fig1-rel"), "did you mean 'fig1-relu'"),
        (("train", "fig1-relu", "--variant", "19pct-rleu-rate-0.004"), "did you mean '19pct-relu-rate-0.002'"),
        (("compare", "fig1-rleu"), "fig1-relu"),
        (("prepare", "cifar11"), "cifar10"),
    ],
)
def test_an_unknown_word_is_an_error_with_the_nearest_name(tiny, capsys, words, suggestion):
    status, _, err = run(capsys, *words)
    assert status not in (0, None)
    assert suggestion in err


def test_train_with_a_variant_trains_one_run_and_evaluate_counts_its_errors(tiny, capsys):
    words = ("fig1-relu", "--scale", "toy", "--variant", "19pct-relu-rate-0.002", "--seed", "4")
    status, out, err = run(capsys, "train", *words, "--epochs", "1", "--width", "0.25", "--precision", "fp32")
    assert status == 0, err
    assert "finished after epoch 1" in out
    (manifest,) = runs.manifests("toy")
    assert manifest["config"]["net"]["width"] == 0.25
    assert "--epochs 1" in manifest["command"]
    status, _, err = run(capsys, "train", *words)
    assert "epochs (1 recorded, 30 asked)" in err
    assert status == 1


def test_options_of_a_run_without_a_variant_are_refused(tiny, capsys):
    status, _, err = run(capsys, "train", "fig1-relu", "--rate", "0.1")
    assert status == 1
    assert "need --variant" in err


def test_doctor_says_what_is_here_and_what_each_scale_lacks(tiny, capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    for word in (
        "processor",
        "threads",
        "matmul",
        "loops in C",
        "torch",
        "devices",
        "disk",
        "formula32",
        "scale paper",
        "lacks",
    ):
        assert word in out


def test_compare_shows_paper_log_and_ours(tiny, capsys):
    status, out, _ = run(capsys, "compare", "s3.2-two-gpus", "--scale", "toy")
    assert status == 0
    assert "1.7 points" in out
    assert "not run" in out


def test_a_missing_set_names_the_command_that_makes_it(tiny, capsys):
    status, _, err = run(capsys, "evaluate", "fig1-relu", "--scale", "cpu", "--variant", "19pct-relu-rate-0.004")
    assert status == 1
    assert "alexnet train fig1-relu --scale cpu" in err


def test_output_that_nobody_reads_on_is_no_traceback():
    words = f"{sys.executable} -m alexnet train --help | true"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr


def test_the_two_column_net_is_trained_evaluated_and_exported_by_command(photographs, capsys, tmp_path):
    name = ("s3.5-architecture", "--scale", "toy", "--variant", "paper-eighth")
    options = ("--width", "0.0625", "--batch-size", "17", "--epochs", "1", "--precision", "fp32")
    status, out, err = run(capsys, "train", *name, *options, "--ablation", "no-norm no-overlap")
    assert status == 0, err
    assert "test error top5 ten views" in out
    assert "--ablation 'no-norm no-overlap'" in runs.manifests("toy")[0]["command"]
    status, out, err = run(capsys, "evaluate", *name)
    assert status == 0, err
    assert re.search(r"test, one view: top-1 [\d.]+% \(\d+ of 12 wrong\)", out)
    assert "test, ten views: top-1" in out
    status, _, err = run(capsys, "export", *name, "--to", str(tmp_path / "net.safetensors"))
    assert status == 0, err
    assert alexnet.load(tmp_path / "net.safetensors").card.preset == "paper"
    status, _, err = run(capsys, "train", *name, "--ablation", "no-nrom")
    assert status == 1
    assert "did you mean 'no-norm'" in err or "ablation ('no-norm no-overlap' recorded" in err


def test_devices_need_a_run_and_a_net_with_columns(tiny, capsys):
    status, _, err = run(capsys, "train", "fig1-relu", "--scale", "toy", "--devices", "2")
    assert status == 1
    assert "need --variant" in err
    status, _, err = run(
        capsys, "train", "fig1-relu", "--scale", "toy", "--variant", "19pct-relu-rate-0.002", "--devices", "2"
    )
    assert status == 1
    assert "have no columns: leave out --devices" in err
