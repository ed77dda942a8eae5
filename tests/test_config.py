import json
from dataclasses import replace

import pytest

from alexnet.config import ColumnNet, Optimiser, RunConfig, Schedule, UserError, config_hash, from_dict, to_dict

CONFIGS = [
    RunConfig(),
    RunConfig(stop_at_train_error=0.25),
    RunConfig(net=ColumnNet(ablation="no-norm"), schedule=Schedule(conv1_drop=None, drops=(0.5,)), augmentation="paper"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_survives_json(config):
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_a_field_that_is_none_by_default_does_not_change_the_hash():
    """The hash of a run recorded before the fields existed: its config, field by field, without them."""
    recorded = {
        **{"claim": "fig1-relu", "variant": "19pct-tanh-rate-0.016", "scale": "cpu", "seed": 0, "data": "cifar10"},
        "net": {"topology": "19pct", "activation": "tanh", "first_sd": 0.0001, "num_classes": 10, "width": 1.0},
        "optimiser": {"rate": 0.016, "bias_rate_factor": 2.0, "momentum": 0.9, "weight_decay": 0.0, "batch_size": 128},
        **{"epochs": 60, "stop_at_train_error": 0.25, "precision": "auto"},
    }
    config = from_dict(RunConfig, recorded)
    assert to_dict(config) == recorded
    assert config_hash(config) == "384cd6b8e49b"
    assert config_hash(replace(config, schedule=Schedule())) != "384cd6b8e49b"
    assert config_hash(replace(config, optimiser=Optimiser(rate=0.016, bias_decay=5e-4))) != "384cd6b8e49b"


def test_a_none_in_place_of_a_value_is_kept():
    assert to_dict(Schedule(conv1_drop=None))["conv1_drop"] is None


def test_an_unknown_field_is_named():
    with pytest.raises(UserError, match="'widht'"):
        from_dict(RunConfig, to_dict(RunConfig()) | {"net": {"widht": 1.0}})
