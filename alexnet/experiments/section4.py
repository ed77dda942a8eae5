"""Section 4: what keeps the net from overfitting."""

from alexnet.experiments.answers import gain, gap
from alexnet.experiments.declare import Experiment, base

CROPS = Experiment(
    claim="s4.1-crops",
    arms={"random crops and flips": base(), "central view": base(random=False)},
    answers={
        "top-1 gain": gain("central view", "random crops and flips", top=1),
        "gap closed": gap("central view", "random crops and flips"),
    },
)
COLOUR_NOISE = Experiment(
    claim="s4.1-pca",
    arms={"with": base(), "without": base(noise=0.0)},
    answers={"top-1 gain": gain("without", "with", top=1)},
)
DROPOUT = Experiment(
    claim="s4.2-dropout",
    arms={"with": base(), "without": base("no-dropout")},
    answers={
        "top-1 gain": gain("without", "with", top=1),
        "gap closed": gap("without", "with"),
    },
)

EXPERIMENTS = (CROPS, COLOUR_NOISE, DROPOUT)
