"""One walk over all experiments, and over everything that must agree."""

import pytest

from alexnet.config import RunConfig, UserError, from_dict, to_dict
from alexnet.experiments import EXPERIMENTS, artefacts, plan, runs
from alexnet.experiments.answers import gain
from alexnet.experiments.declare import WHY_NONE, Arm, Experiment, base, changed, cifar
from alexnet.experiments.scales import SCALES, table
from alexnet.model import build, image_side_of
from alexnet.paper.claims import CLAIMS, EXACT_UNITS
from alexnet.preprocessing import SETS

EACH = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.claim)


@pytest.mark.parametrize("scale", SCALES)
@EACH
def test_every_arm_of_every_experiment_is_a_run_that_can_be_trained_at_every_scale(experiment, scale):
    for arm, config in experiment.configs(scale):
        assert from_dict(RunConfig, to_dict(config)) == config, arm
        info = SETS[config.data]
        assert config.net.num_classes == info.num_classes
        views = config.augmentation
        assert image_side_of(config.net) == (views.crop_side if views else info.side)
        assert info.side >= image_side_of(config.net)
        if config.schedule is not None and config.schedule.kind == "plateau":
            assert "val" in info.counts, "a plateau is seen on held-out images"


@EACH
def test_every_answer_is_compared_with_a_value_of_its_claim_and_measured_somewhere(experiment):
    for key, answer in experiment.answers.items():
        assert experiment.value(key).dataset, key
        for scale in SCALES:
            where = plan.where(experiment, key, scale)
            assert where.split in SETS[where.data].counts
            assert where.views in ("whole", "central", "ten", "grid", "as trained", "")
            assert all(name.split("/")[0] in artefacts.KINDS for name in answer.artefacts(where))


@EACH
def test_at_paper_each_number_is_measured_on_the_set_split_and_views_that_the_claim_names(experiment):
    for key in experiment.answers:
        value, where = experiment.value(key), plan.where(experiment, key, "paper")
        if value.dataset != "ilsvrc":
            assert where.data == value.dataset
        if value.split in SETS[where.data].counts:
            assert where.split == value.split
        if value.views:
            assert where.views == value.views


@pytest.mark.parametrize("claim", [c for c in CLAIMS.values() if c.is_measured], ids=lambda claim: claim.id)
def test_every_claim_that_is_measured_has_runs_at_small_or_a_reason_why_not(claim):
    if claim.id in WHY_NONE:
        return
    own = [experiment for experiment in EXPERIMENTS if experiment.claim == claim.id]
    assert own, "a claim without an experiment"
    assert any(list(e.configs("small")) or list(e.searches("small")) for e in own) or all(e.why_not["small"] for e in own)


def test_a_reason_and_runs_exclude_each_other():
    for experiment in EXPERIMENTS:
        for scale in experiment.why_not:
            assert not list(experiment.configs(scale)), experiment.claim
            assert not list(experiment.searches(scale)), experiment.claim


def test_every_number_of_a_measured_claim_is_answered_or_exact_or_quoted_or_has_a_reason():
    for claim in (c for c in CLAIMS.values() if c.is_measured and c.id not in WHY_NONE):
        answered = {key.partition(";")[0] for e in EXPERIMENTS if e.claim == claim.id for key in e.answers}
        for key, value in claim.keyed.items():
            exact = value.unit in EXACT_UNITS or value.quoted
            assert key in answered or exact or f"{claim.id}: {key}" in WHY_NONE, f"{claim.id}: {key}"


def test_equal_trainings_are_one_run_whoever_asks():
    small = plan.wanted("small")
    names = [each.name for each in small]
    assert len(names) == len(set(names))
    base_run = next(each for each in small if each.config == base().config(table("small"), "ilsvrc2010", 0))
    assert len(base_run.claims) >= 12


@pytest.mark.parametrize("scale", SCALES)
def test_the_plan_has_every_distinct_run_once_with_all_that_is_to_be_measured(scale):
    wanted = {each.name: each for each in plan.wanted(scale, assume=True)}
    for experiment in EXPERIMENTS:
        for arm, config in experiment.configs(scale):
            entry = wanted[runs.name_of(config)]
            assert set(plan.artefacts_of(experiment, scale, arm)) <= entry.artefacts
            if config.start_from is not None:
                assert runs.name_of(config.start_from) in wanted


def test_relu_and_tanh_differ_in_nothing_but_activation_and_rate():
    (figure1,) = [e for e in EXPERIMENTS if e.claim == "fig1-relu"]
    for scale in SCALES:
        arms = dict(figure1.searches(scale))
        for end in ("", ", conv-local-13pct"):
            if f"ReLU{end}" in arms:
                sides = [arms[f"{word}{end}"].config(table(scale), "cifar10", 0.001, 1) for word in ("ReLU", "tanh")]
                assert sides[1] == changed(sides[0], {"activation": "tanh"})
                assert sides[0].optimiser.weight_decay == 0
                assert sides[0].augmentation is None


def test_an_ablation_changes_the_net_and_nothing_else():
    small = table("small")
    whole, without = (arm.config(small, "ilsvrc2012", 3) for arm in (base(), base("no-norm")))
    assert changed(without, {"ablation": ""}) == whole
    noiseless = base(noise=0.0).config(small, "ilsvrc2012", 3)
    assert changed(noiseless, {"noise": 0.1}) == whole


def test_a_fine_tuned_arm_begins_with_the_run_of_the_same_seed_on_the_larger_set():
    arm = base("conv6", start_from=base("conv6", data="fall2011"))
    paper = arm.config(table("paper"), "ilsvrc2012", 1)
    assert (paper.data, paper.start_from.data, paper.start_from.seed) == ("ilsvrc2012", "fall2011", 1)
    assert paper.start_from.net.num_classes == SETS["fall2011"].num_classes
    assert not arm.is_base


def test_seeds_share_what_they_can():
    """Same seed, same initial weights where shapes agree: the arms of an experiment pair."""
    toy = table("toy")
    whole, without = (build(arm.config(toy, "ilsvrc2012", 2).net, 2).plain_state() for arm in (base(), base("no-norm")))
    assert whole.keys() == without.keys()
    assert all((whole[name] == without[name]).all() for name in whole)


def test_a_declaration_that_cannot_hold_is_refused_where_it_is_written():
    arms = {"with": base(), "without": base("no-norm")}
    with pytest.raises(UserError, match=r"has no value 'top-2 gain'; did you mean 'top-\d gain'"):
        Experiment("s3.3-lrn", arms, {"top-2 gain": gain("without", "with", top=1)})
    with pytest.raises(ValueError, match="needs the arm 'withuot'"):
        Experiment("s3.3-lrn", arms, {"top-1 gain": gain("withuot", "with", top=1)})
    with pytest.raises(UserError, match=r"There is no claim 's3\.3-lnr'"):
        Experiment("s3.3-lnr", arms, {"top-1 gain": gain("without", "with", top=1)})
    with pytest.raises(ValueError, match="no field of a RunConfig is named 'nois'"):
        base(nois=0.0).config(table("toy"), "ilsvrc2012")


def test_the_nets_of_section_3_3_are_trained_as_the_files_of_cuda_convnet_say():
    (cifar_norms,) = [e for e in EXPERIMENTS if e.claim == "s3.3-lrn-cifar"]
    with_, without, published = (cifar_norms.config(arm, "paper") for arm in ("with", "without", "13pct as published"))
    assert changed(without, {"norms": None}) == with_
    assert (with_.epochs, published.epochs) == (520, 160)
    assert [cifar_norms.config("with", scale).epochs for scale in ("small", "toy")] == [260, 6]
    assert dict(with_.optimiser.layer_decay) == {"local3": 0.004, "local4": 0.004, "fc5": 0.01}
    assert dict(published.optimiser.layer_decay)["fc5"] == 0.004
    assert with_.augmentation.crop_side == with_.net.image_side == 24
    assert isinstance(cifar("19pct"), Arm)
