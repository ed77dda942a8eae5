"""Section 4: what keeps the net from overfitting."""

from alexnet.experiments.answers import first_epoch_of_loss, gain, gap, ratio
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
    answers={"top-1 gain": gain("without", "with", top=1), "gap closed": gap("without", "with")},
)
DROPOUT = Experiment(
    claim="s4.2-dropout",
    arms={"with": base(), "without": base("no-dropout")},
    answers={
        "top-1 gain": gain("without", "with", top=1),
        "gap closed": gap("without", "with"),
    },
)

# The paper does not say when a training has converged. Two readings, stated before a net without dropout was trained: the
# first epoch whose mean training loss is two thirds of ln K, which the rate of the beginning reaches, and half of it.
DROPOUT_COST = Experiment(
    claim="s4.2-dropout-cost",
    arms={"with": base(), "without": base("no-dropout")},
    answers={
        f"iterations to converge; to {words} of ln K": ratio("with", "without", of=first_epoch_of_loss(share))
        for words, share in (("two thirds", 2 / 3), ("half", 1 / 2))
    },
)

EXPERIMENTS = (CROPS, COLOUR_NOISE, DROPOUT, DROPOUT_COST)
