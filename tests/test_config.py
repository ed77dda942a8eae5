import json
from dataclasses import replace

import pytest

from alexnet import config as configs
from alexnet.config import (
    Augmentation,
    ColumnNet,
    Optimiser,
    RunConfig,
    Schedule,
    UserError,
    config_hash,
    differing_fields,
    from_dict,
    to_dict,
)  # fmt: skip

CONFIGS = [
    RunConfig(),
    RunConfig(stop_at_train_error=0.25),
    RunConfig(
        net=ColumnNet(ablation="no-norm"), schedule=Schedule(conv1_drop=None, drops=(0.5,)), augmentation=Augmentation()
    ),
    RunConfig(optimiser=Optimiser(layer_decay=(("fc5", 0.01),)), start_from=RunConfig(seed=2, data="fall2011")),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_survives_json(config):
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_a_field_that_is_none_by_default_does_not_change_the_hash():
    """The hash of a recorded run, from its config field by field."""
    recorded = {
        "seed": 0,
        "data": "cifar10",
        "net": {
            **{"topology": "19pct", "activation": "tanh", "first_sd": 0.0001, "num_classes": 10, "width": 1.0},
            "image_side": 32,
        },
        "optimiser": {"rate": 0.016, "bias_rate_factor": 2.0, "momentum": 0.9, "weight_decay": 0.0, "batch_size": 128},
        **{"epochs": 60, "stop_at_train_error": 0.25, "precision": "auto"},
    }
    config = from_dict(RunConfig, recorded)
    assert to_dict(config) == recorded
    assert config_hash(config, seed=False).startswith("f23235")
    assert config_hash(replace(config, schedule=Schedule())) != config_hash(config)
    assert config_hash(replace(config, optimiser=Optimiser(rate=0.016, bias_decay=5e-4))) != config_hash(config)


def test_the_hash_depends_on_neither_the_order_of_fields_nor_the_spelling_of_numbers():
    config = RunConfig(optimiser=Optimiser(rate=1.0))
    shuffled = dict(reversed(list(to_dict(config).items())))
    assert config_hash(from_dict(RunConfig, shuffled)) == config_hash(config)
    assert config_hash(replace(config, optimiser=Optimiser(rate=1))) == config_hash(config)
    assert config_hash(replace(config, seed=1)) != config_hash(config)
    assert config_hash(replace(config, seed=1), seed=False) == config_hash(config, seed=False)
    tuned = [replace(config, seed=seed, start_from=replace(config, seed=seed)) for seed in (0, 1)]
    assert config_hash(tuned[0], seed=False) == config_hash(tuned[1], seed=False) != config_hash(config, seed=False)


def test_a_none_in_place_of_a_value_is_kept():
    assert to_dict(Schedule(conv1_drop=None))["conv1_drop"] is None


def test_an_unknown_field_is_named():
    with pytest.raises(UserError, match="'widht'"):
        from_dict(RunConfig, to_dict(RunConfig()) | {"net": {"widht": 1.0}})


def test_what_differs_is_named_with_both_values():
    ours, theirs = (to_dict(RunConfig(optimiser=Optimiser(batch_size=size))) for size in (32, 64))
    assert differing_fields(ours, theirs) == [("optimiser.batch_size", 32, 64)]


@pytest.mark.parametrize(
    ("system", "variable", "expected"),
    [
        ("linux", "", "home/.local/share/alexnet"),
        ("linux", "elsewhere", "elsewhere/alexnet"),
        ("darwin", "", "home/Library/Application Support/alexnet"),
    ],
)
def test_without_a_checkout_data_and_results_are_in_a_folder_of_the_users(monkeypatch, tmp_path, system, variable, expected):
    assert configs.home_dir() == configs.PROJECT_DIR
    monkeypatch.setattr(configs, "PROJECT_DIR", tmp_path / "site-packages")
    monkeypatch.setattr(configs.sys, "platform", system)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", variable and str(tmp_path / variable))
    assert configs.home_dir() == tmp_path / expected
