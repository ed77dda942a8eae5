import errno
import os
import re
import shutil
import subprocess
import sys
import warnings
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_set
from PIL import Image
from records import record

import alexnet
from alexnet import cli, experiments, files
from alexnet.config import RunConfig
from alexnet.experiments import artefacts, recording, runs
from alexnet.experiments.results import Results
from alexnet.report import Chapter
from alexnet.training import checkpoint, distributed


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
    for command in cli.COMMANDS:
        assert command in out
        status, text, _ = run(capsys, command, "--help")
        assert status == 0
        assert "usage: alexnet" in text
        if command != "doctor":
            assert f"\n  alexnet {command} " in text, "no example"


def test_a_warning_is_one_line_without_code(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    run(capsys, "--help")
    assert warnings.formatwarning("x is passed over", UserWarning, "file.py", 1) == "warning: x is passed over\n"


def test_help_does_not_wait_for_torch():
    script = (
        "import sys\nfrom alexnet import cli\ntry: cli.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("plann",), "did you mean 'plan'"),
        (("plan", "--scal", "toy"), "--scale"),
        (("plan", "--scale", "cpu"), "small"),
        (("train", "fig1-relu", "--arm", "tanh", "--scale", "toy", "--rat", "1"), "--rate"),
        (("train", "fig1-rel", "--scale", "toy"), "did you mean 'fig1-relu'"),
        (("train", "fig1-relu", "--arm", "tahn", "--scale", "toy"), "did you mean 'tanh'"),
        (("train", "fig1-relu", "--arm", "tanh, conv-local-13pct", "--scale", "toy"), "at scale toy"),
        (("train", "formula32/19pct-nothing-000000/seed-0"), "There is no run"),
        (("train", "formula32/19pct-nothing-000000/seed-²"), "There is no run"),
        (
            ("train", "fig1-relu", "--scale", "toy", "--arm", "ReLU", "--norm-alpha", "0.1"),
            "leave out --norms, --norm-alpha",
        ),
        (("evaluate", "s3.3-lrn", "--scale", "toy"), "Its arms: 'with', 'without'"),
        (("evaluate",), "Say which net"),
        (("compare", "fig1-rleu"), "fig1-relu"),
        (("prepare", "cifar11"), "cifar10"),
    ],
)
def test_an_unknown_word_is_an_error_with_the_nearest_name(tiny, capsys, words, suggestion):
    status, _, err = run(capsys, *words)
    assert status not in (0, None)
    assert suggestion in err
    assert "Traceback" not in err


def test_an_arm_with_changed_options_is_a_run_of_its_own_and_is_evaluated_by_its_name(tiny, capsys):
    words = ("fig1-relu", "--scale", "toy", "--arm", "ReLU", "--seed", "4")
    status, out, err = run(capsys, "train", *words, "--epochs", "1", "--width", "0.25", "--precision", "fp32")
    assert status == 0, err
    assert "finished after epoch 1" in out
    (mine,) = runs.recorded("formula32/*")
    assert (mine.config.net.width, mine.config.epochs, mine.seed) == (0.25, 1, 4)
    status, out, err = run(capsys, "evaluate", mine.name)
    assert status == 0, err
    held = next(row for row in mine.metrics if (row["epoch"], row["split"], row["k"]) == (1, "test", 1))
    assert f"({held['wrong']:,} of 60 wrong)" in out
    status, _, err = run(capsys, "evaluate", *words)
    assert status == 1
    assert "There is no run" in err, "the arm itself was not trained"


def test_a_run_on_a_set_that_is_not_prepared_yet_has_as_many_classes_as_that(tiny, monkeypatch):
    train = cli._train_defaults(["fig1-relu", "--scale", "toy", "--arm", "ReLU"])
    monkeypatch.setattr("alexnet.preprocessing.prepare", lambda name, verify: SimpleNamespace(classes=("a", "b", "c")))
    own, facts = replace(train, arm="ReLU", scale="toy", changes=replace(train.changes, data="imagenette"))._own()
    assert (own.data, own.net.num_classes) == ("imagenette", 3)
    assert facts


def test_a_run_is_begun_by_the_main_rank_before_others_go_on_and_before_it_is_known_what_is_measured(tiny, monkeypatch):
    done = []
    ended = SimpleNamespace(folder="", status="finished", manifest={"epochs": 1, "warning": None})
    train = cli._train_defaults(["fig1-relu", "--scale", "toy", "--arm", "ReLU"])
    monkeypatch.setattr(experiments.plan, "artefacts_wanted", lambda config: done.append("measured") or set())
    monkeypatch.setattr(recording, "begin", lambda config, **facts: done.append("begin"))
    monkeypatch.setattr(recording, "train_run", lambda config, **how: done.append("train") or ended)
    alone = ["begin", "wait", "measured", "train"]
    ranks = ((True, ["begin", "wait", "train"]), (False, ["wait", "train"]))
    for is_rank, is_main, expected in ((False, True, alone), *((True, *each) for each in ranks)):
        monkeypatch.setattr(distributed, "is_rank", lambda is_rank=is_rank: is_rank)
        group = SimpleNamespace(is_main=is_main, any=lambda *flags: done.append("wait"))
        monkeypatch.setattr(distributed, "joined", lambda layout, device, group=group: nullcontext(group))
        train._train(RunConfig(), {"arm_of": []})
        assert done == expected
        done.clear()


def test_options_of_a_run_without_an_arm_are_refused(tiny, capsys):
    for option in (("--rate", "0.1"), ("--devices", "2"), ("--seed", "1"), ("--name", "mine"), ("--from", "a.safetensors")):
        status, _, err = run(capsys, "train", "fig1-relu", "--scale", "toy", *option)
        assert status == 1
        assert "need --arm" in err


@pytest.mark.parametrize(
    "options",
    [("--epochs", "0"), ("--epochs", "-3"), ("--batch-size", "0"), ("--width", "0"), ("--rate", "nan"), ("--rate", "-1"),
     ("--threads", "0"), ("--devices", "0"), ("--seed", "-1"), ("--momentum", "1"), ("--epochs", "1000000000"),
     ("--width", "1e9"), ("--rate", "inf"), ("--weight-decay", "-1"), ("--stop-at-train-error", "2"), ("--replicas", "-1"),
     ("--name", "two words"), ("--name", ".."), ("--layer-decay", "fc4", "nan")],
)  # fmt: skip
def test_a_number_that_no_training_can_have_is_refused_by_its_option(tiny, capsys, options):
    status, _, err = run(capsys, "train", "fig1-relu", "--scale", "toy", "--arm", "ReLU", *options)
    assert status == 1
    assert f"{options[0]} must be" in err
    assert not list(runs.runs_dir().rglob("manifest.json"))


def test_a_name_says_all_of_a_run(tiny, capsys):
    for options in (("--epochs", "5"), ("--seed", "3"), ("--scale", "toy"), ("--arm", "with"), ("--name", "mine")):
        status, _, err = run(capsys, "train", "formula32/some-run/seed-0", *options)
        assert status == 1
        assert "A name says all of a run" in err


def test_a_fine_tuned_arm_is_trained_from_its_pre_training(photographs, capsys):
    status, _, err = run(capsys, "train", "table2", "--scale", "toy", "--arm", "1 CNN*", "--epochs", "1")
    assert status == 1
    assert "begins with the weights of" in err


def test_devices_need_a_net_with_columns(tiny, capsys):
    words = ("train", "fig1-relu", "--scale", "toy", "--arm", "ReLU", "--devices", "2")
    status, _, err = run(capsys, *words)
    assert status == 1
    assert "--devices" in err


def test_doctor_says_what_is_here_and_what_each_scale_lacks(tiny, capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    for word in ("processor", "threads", "torch", "disk", "formula32", "scale toy    ready", "scale paper", "a CUDA device"):
        assert word in out


def test_list_shows_every_arm_and_the_states_of_its_seeds(tiny, capsys):
    status, out, _ = run(capsys, "list", "s3.3-lrn", "--scale", "small")
    assert status == 0
    assert re.search(r"s3\.3-lrn +with +0: missing, 1: missing, 2: missing", out)
    assert re.search(r"^ +without +0: missing", out, re.M)


def test_plan_prints_commands_that_name_runs(tiny, capsys):
    status, out, _ = run(capsys, "plan", "s3.3-lrn", "--scale", "small", "--commands")
    assert status == 0
    lines = out.splitlines()
    assert len(lines) == 5 + 2
    assert all(re.fullmatch(r"alexnet train imagenet20/source2012-half\S+/seed-\d", line) for line in lines)
    name = lines[0].split()[-1]
    status, _, err = run(capsys, "train", name)
    assert status == 1
    assert "alexnet prepare imagenet20" in err


def test_compare_shows_the_paper_the_run_notes_and_ours(tiny, capsys):
    status, out, _ = run(capsys, "compare", "s3.2-two-gpus")
    assert status == 0
    assert "1.7" in out
    assert "1.695 points" in out
    assert "not run" in out


def test_output_that_nobody_reads_is_no_traceback():
    words = f"{sys.executable} -m alexnet train --help | true"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr


def test_the_two_column_net_is_trained_measured_evaluated_and_exported_by_command(photographs, capsys, tmp_path):
    name = ("s3.3-lrn", "--scale", "toy", "--arm", "without")
    options = ("--width", "0.0625", "--batch-size", "17", "--epochs", "1", "--precision", "fp32")
    status, out, err = run(capsys, "train", *name, *options, "--ablation", "no-norm no-overlap")
    assert status == 0, err
    (mine,) = runs.recorded("formula256/*")
    assert mine.config.net.ablation == "no-norm no-overlap"
    status, out, err = run(capsys, "evaluate", mine.name)
    assert status == 0, err
    assert re.search(r"formula256 test, central: top-1 [\d.]+% \(\d+ of 12 wrong\)", out)
    assert "formula256 test, ten: top-1" in out
    status, _, err = run(capsys, "export", mine.name, "--to", str(tmp_path / "net.safetensors"))
    assert status == 0, err
    file = str(tmp_path / "net.safetensors")
    assert alexnet.load(file).card.preset == "source2012"
    status, of_file, err = run(capsys, "evaluate", "--weights", file, "--data", "formula256")
    assert status == 0, err
    assert of_file == out, "the file counts what the run counts, in the same views"
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for place, name_ in enumerate(("one.png", "more/two.png")):
        Image.fromarray(photographs.splits["test"].images[place]).resize((300, 280)).save(photos / name_)
    status, seen, err = run(capsys, "predict", str(photos), "--weights", file, "--plot", str(tmp_path / "seen.svg"))
    assert status == 0, err
    assert len(re.findall(r"^ +[\d.]+%  (.+)$", seen, re.M)) == 2 * 5
    assert all(word in photographs.words for word in re.findall(r"%  (.+)$", seen, re.M))
    assert "<svg" in (tmp_path / "seen.svg").read_text()
    assert run(capsys, "predict", str(photos))[1] in seen, "the latest run is taken where no file is named"
    status, _, err = run(
        capsys, "features", str(photos), "--layer", "fc6", "--to", str(tmp_path / "f.npz"), "--weights", file
    )
    assert status == 0, err
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (2, 256)
        assert found["files"].tolist() == ["more/two.png", "one.png"]
    (tmp_path / "empty").mkdir()
    for words, said in ((("--layer", "fc9"), "fc7"), (("--device", "gpu"), "cuda:1"), (("--to", "."), "Is a directory")):
        status, _, err = run(capsys, "features", str(photos), *words)
        assert (status, said in err, len(err.splitlines())) == (1, True, 1)
    assert "has no pictures" in run(capsys, "features", str(tmp_path / "empty"))[2]
    status, _, err = run(capsys, "train", *name, "--ablation", "no-nrom")
    assert status == 1
    assert "did you mean 'no-norm'" in err
    assert not list(runs.runs_dir().rglob("*no-nrom*")), "said before a folder is made"
    assert artefacts.read_errors(mine.folder) == []


SMALL = ("fig1-relu", "--scale", "toy", "--arm", "ReLU", "--width", "0.25", "--epochs", "1", "--batch-size", "50")


def test_a_named_run_stands_beside_the_claims_own_as_yours_and_blocks_nothing(tiny, capsys):
    status, out, err = run(capsys, "train", *SMALL, "--name", "mine")
    assert status == 0, err
    assert "/formula32/mine-19pct-relu-width-0.25-" in out
    assert "epoch 1 of 1" in err, "without a terminal a line for each epoch"
    (mine,) = runs.recorded("formula32/*")
    status, out, _ = run(capsys, "compare", "fig1-relu", "--scale", "toy")
    assert status == 0
    assert re.search(r"as 'ReLU'.*yours|mine-19pct-relu.*yours", out)
    assert "Scale: toy." in out
    table = Chapter("fig1-relu", "toy").verdicts().data
    assert re.search(
        r"\| mine-19pct-relu\S+, as 'ReLU': top-1 error; Formula-32 .*, test, whole images +\| yours +\| \d", table
    )
    assert "yours" not in Chapter("fig1-relu", "small").verdicts().data, "trained as an arm of another scale"
    assert Results(Chapter("fig1-relu", "toy").experiment, "toy").runs["ReLU"] == {}, "not in the claim's verdict"
    assert "yours" not in run(capsys, "compare", "s3.3-lrn")[1]
    status, out, _ = run(capsys, "plan", "fig1-relu", "--scale", "toy", "--commands")
    assert status == 0
    assert mine.name not in out
    run(capsys, "train", *SMALL)
    assert len(list(runs.recorded("formula32/*"))) == 2, "a name is a run of its own"


def test_a_net_from_a_file_keeps_all_but_the_last_layer_and_is_another_run(tiny, capsys, tmp_path):
    assert run(capsys, "train", *SMALL)[0] == 0
    (first,) = runs.recorded("formula32/*")
    file = str(tmp_path / "net.safetensors")
    status, _, err = run(capsys, "export", first.name, "--to", file)
    assert status == 0, err
    status, out, err = run(capsys, "train", *SMALL, "--rate", "0", "--from", file)
    assert status == 0, err
    assert "fine-tuned" in out
    tuned = next(each for each in runs.recorded("formula32/*") if each.name != first.name)
    assert tuned.config.start_file is not None
    before, after = (checkpoint.read_weights(each.folder) for each in (first, tuned))
    assert {key for key in before if not before[key].equal(after[key])} == {"fc4.weight", "fc4.bias"}
    status, _, err = run(capsys, "train", *SMALL, "--width", "0.5", "--from", file)
    assert status == 1
    assert "holds another net than this run's" in err
    status, _, err = run(capsys, "train", *SMALL, "--from", str(tmp_path / "none"))
    assert (status, len(err.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("device", "precision", "is_told"), [("A GPU", "bf16", True), ("cpu", "bf16", True), ("cpu", "fp32", False)]
)
def test_a_plan_says_when_what_is_recorded_was_computed_otherwise_than_here(
    tiny, capsys, monkeypatch, device, precision, is_told
):
    """So nobody trains for a night what no comparison takes; this machine is made one that computes in fp32."""
    monkeypatch.setattr("alexnet.training.precision.matmul_speed", lambda *_, **__: 1.0)
    experiment = next(each for each in experiments.EXPERIMENTS if each.claim == "s3.3-lrn")
    record(experiment.config("with", "toy"), [("test", "ten", 1, 1, 10)], device=device, precision=precision)
    out = run(capsys, "plan", "s3.3-lrn", "--scale", "toy", "--device", "cpu")[1]
    assert ("than this machine's: 1. New ones are not compared with them" in out) is is_told
    assert ("make reproduce SCALE=toy FRESH=1" in out) is is_told


def test_a_training_that_diverges_says_so_and_ends_with_a_status_of_its_own(tiny, capsys):
    status, out, err = run(capsys, "train", *SMALL, "--rate", "1e6")
    assert status == cli.UNHEALTHY
    assert "diverged" in out
    assert err.count("rate that is too high") == 2, "while it trains, and at the end"


def test_a_run_without_its_weights_is_not_evaluated_and_its_set_not_made_again(tiny, capsys):
    assert run(capsys, "train", *SMALL)[0] == 0
    (done,) = runs.recorded("formula32/*")
    (done.folder / checkpoint.WEIGHTS).unlink()
    shutil.rmtree(tiny.folder)
    status, _, err = run(capsys, "evaluate", done.name)
    assert status == 1
    assert "not on this machine" in err, "said before the set is made again"
    assert not tiny.folder.is_dir()
    assert "elete" not in err


def test_list_shows_the_prepared_sets(tiny, capsys):
    status, out, _ = run(capsys, "list", "--scale", "toy")
    assert status == 0
    assert re.search(r"formula32 +300 train, 60 test; 10 classes", out)
    assert re.search(r"ilsvrc2010 +not prepared: from your own copy", out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predict",), "Say which photographs"),
        (("predict", "none.jpg"), "No trained net is on this machine"),
        (("evaluate", "s3.3-lrn", "--weights", "a"), "Say which net"),
        (("train", "s3.3-lrn", "--scale", "toy", "--arm", "with", "--seeds", "3"), "--seed says which"),
        (("plan", "--seeds", "0"), "--seeds must be"),
        (("train", "--arm", "ReLU"), "is an arm of which claim?"),
        (("train", "all", "--arm", "ReLU", "--scale", "toy"), "is an arm of which claim?"),
        (("evaluate", "--weights", "a", "--data", "formula32", "--scale", "toy"), "Say which net"),
        (("train", "fig1-relu", "--scale", "toy", "--arm", "ReLU", "--data", "../data/formula32"), "There is no data set"),
        (("figure", "fig1-rel"), "did you mean"),
        (("train", "--epochs", "1", "fig1-relu", "--arm", "ReLU", "--scale", "toy"), "Name the claim before the options"),
    ],
)
def test_a_mistake_is_one_line(tiny, capsys, words, said):
    status, _, err = run(capsys, *words)
    assert (status, len(err.splitlines())) == (1, 1)
    assert said in err


def test_windows_is_told_of_wsl_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(cli.os, "name", "nt")
    status, _, err = run(capsys, "plan")
    monkeypatch.undo()
    assert status == 1
    assert "Inside WSL (install it with: wsl --install)" in err
    assert "\n" not in err


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_refused_access_is_one_line_with_the_file_and_the_variables(capsys, monkeypatch, number):
    def refused(self):
        raise OSError(number, os.strerror(number), "/data/a\x1b[2J")

    monkeypatch.setattr(cli.Plan, "__call__", refused)
    status, _, err = run(capsys, "plan")
    assert (status, err.count("\n")) == (1, 0)
    assert f"error: /data/a\\x1b[2J: {os.strerror(number)}. ALEXNET_DATA says where" in err


def test_an_error_that_is_nobodys_mistake_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli.Plan, "__call__", lambda self: os.stat("/nowhere/at/all"))
    with pytest.raises(FileNotFoundError):
        cli.main(["plan"])


def test_threads_that_a_run_cannot_resume_with_are_refused_and_begin_it_anew_elsewhere(tiny, capsys, tmp_path, monkeypatch):
    config = experiments.plan.config_of("fig1-relu", "ReLU", "toy", 0)
    begun = recording.train_run(replace(config, net=replace(config.net, width=0.25), epochs=2), epoch_limit=1, threads=1)
    capsys.readouterr()
    status, _, err = run(capsys, "train", begun.name, "--threads", "2")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "resumes with its 1 threads, on which its numbers depend. Leave out --threads, or" in err
    assert f"ALEXNET_RUNS=DIR alexnet train {begun.name} --threads 2" in err
    assert run(capsys, "train", begun.name, "--threads", "1")[0] == 0
    assert run(capsys, "train", begun.name, "--threads", "2")[0] == 0, "of a finished run there is nothing to refuse"


def test_a_set_of_ones_own_is_known_to_every_command(tiny, capsys, tmp_path, monkeypatch):
    make_set(tmp_path / "data" / "mine", train=200, test=40)
    status, _, err = run(capsys, "train", *SMALL, "--data", "mine")
    assert status == 0, err
    (mine,) = runs.recorded("mine/*")
    monkeypatch.setattr(experiments.plan, "_seconds_per_image", lambda *how: 1.0)
    assert experiments.plan.seconds_per_epoch(mine.config) == pytest.approx(200 + (200 + 40) / 3), "all are counted"
    for words in (("plan",), ("list",), ("compare",)):
        status, out, err = run(capsys, *words, "fig1-relu", "--scale", "toy")
        assert status == 0, err
    assert re.search(r"\bmine, test, whole", out), "by its name as it was given"
    assert re.search(r"mine +200 train, 40 test", run(capsys, "list", "--scale", "toy")[1])
    assert run(capsys, "evaluate", mine.name)[0] == 0


def test_doctor_takes_a_device_as_every_command_with_a_net(tiny, capsys):
    assert run(capsys, "doctor", "--device", "cpu")[0] == 0
    status, _, err = run(capsys, "doctor", "--device", "cuda:7")
    assert (status, len(err.splitlines())) == (1, 1)


def test_what_a_killed_prepare_left_is_no_set_of_its_own(tiny, capsys, tmp_path):
    make_set(tmp_path / "data" / "formula32.new")
    assert "formula32.new" not in run(capsys, "list", "--scale", "toy")[1]


@pytest.mark.parametrize("content", ["[]", "{}", '{"classes": []}', "", "{"])
def test_a_damaged_manifest_of_a_set_is_one_line_that_says_how_to_make_it_again(tiny, capsys, content):
    manifest = tiny.folder / "prepare.json"
    manifest.write_text(content)
    for words in (("prepare", "formula32"), ("train", *SMALL)):
        status, _, err = run(capsys, *words)
        assert (status, len(err.splitlines())) == (1, 1)
        assert err.startswith(f"error: {manifest}")
        assert err.endswith("Make the set again with: alexnet prepare formula32 --force")
    assert run(capsys, "list", "fig1-relu", "--scale", "toy")[0] == 0
    status, out, _ = run(capsys, "list", "--scale", "toy")
    assert (status, "cifar10" in out) == (0, True)


def test_a_file_where_a_folder_is_wanted_and_the_other_way_round_is_one_line(tiny, capsys, tmp_path, monkeypatch):
    assert run(capsys, "train", *SMALL)[0] == 0
    (done,) = runs.recorded("formula32/*")
    (tmp_path / "file").touch()
    for to, named in ((tmp_path / "data", "data"), (tmp_path / "file" / "net.safetensors", "file")):
        status, _, err = run(capsys, "export", done.name, "--to", str(to))
        assert (status, len(err.splitlines())) == (1, 1)
        assert err.startswith(f"error: {tmp_path / named}: ")
    monkeypatch.setenv("ALEXNET_RUNS", str(tmp_path / "file"))
    assert re.search(r"error: \S+/file\S*: .*ALEXNET_RUNS", run(capsys, "train", *SMALL)[2])


def test_a_run_of_a_claim_that_is_gone_is_still_the_users(tiny, capsys):
    assert run(capsys, "train", *SMALL, "--name", "mine")[0] == 0
    (mine,) = runs.recorded("formula32/*")
    files.write_json(mine.folder / "manifest.json", mine.manifest | {"facts": {"arm_of": ["gone", "x", "toy"]}})
    assert run(capsys, "train", mine.name)[0] == 0
    assert "as 'x'" in run(capsys, "compare", "all", "--scale", "toy")[1]
