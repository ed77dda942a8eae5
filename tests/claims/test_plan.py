from alexnet.claims import plan, runs, scales
from alexnet.claims.experiments import fig1_studies


def test_before_anything_ran_every_run_is_missing(tiny):
    rows = plan.plan_runs("toy")
    assert {row.state for row in rows} == {"missing"}
    assert all(row.seconds > 0 for row in rows)
    assert len(rows) == 2 * (3 + 3), "three rates and three seeds for each activation"


def test_a_finished_run_costs_nothing_and_a_half_finished_one_less_than_a_missing_one(tiny, monkeypatch):
    monkeypatch.setattr(plan, "seconds_per_epoch", lambda config: 10.0)
    relu = fig1_studies("toy")[0]
    first = relu.config(relu.first_rate, 0)
    before = {row.config.name: row for row in plan.plan_runs("toy")}
    runs.get(first, epoch_limit=2)
    half = {row.config.name: row for row in plan.plan_runs("toy")}[first.name]
    assert half.state == "half done"
    assert half.seconds == before[first.name].seconds - 2 * 10.0


def test_the_time_of_an_epoch_counts_training_and_both_evaluations(monkeypatch):
    monkeypatch.setattr(plan, "seconds_per_image", lambda net, batch_size: 0.001)
    config = fig1_studies("cpu")[0].config(0.001, 0)
    assert plan.seconds_per_epoch(config) == 0.001 * (50_000 + (50_000 + 10_000) / 3)


def test_times_are_said_as_a_person_says_them():
    assert [plan.as_time(seconds) for seconds in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def test_the_table_names_runs_notebooks_time_and_disk(tiny):
    text = plan.as_text("toy")
    assert "fig1-relu/19pct-relu-rate" in text
    assert "relu.ipynb" in text
    assert "MB of disk" in text


def test_without_gpus_or_imagenet_the_scale_is_toy_and_the_next_one_is_explained(tiny):
    scale, why = scales.choose("auto")
    assert scale == "toy"
    assert "lacks what the scale paper needs" in why
    assert "SCALE=cpu" in why
    assert "alexnet prepare cifar10" in why


def test_with_two_gpus_and_imagenet_the_scale_is_paper(tiny, monkeypatch):
    monkeypatch.setattr(scales.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(scales.store, "is_prepared", lambda name: True)
    assert scales.choose("auto")[0] == "paper"
    assert scales.choose("cpu")[0] == "cpu"
    assert "nothing that is not here" in scales.choose("cpu")[1]
