"""Section 5: the details of learning."""

from alexnet.experiments.answers import gain
from alexnet.experiments.declare import Experiment, base

DECAY = Experiment(
    claim="s5-decay",
    arms={"with": base(), "without": base(weight_decay=0.0)},
    answers={"top-1 training gain": gain("without", "with", top=1)},
)

EXPERIMENTS = (DECAY,)
