"""Section 7 and the claim of section 1: depth matters."""

from alexnet.experiments.answers import gain
from alexnet.experiments.declare import Experiment, base

CONV = ("conv2", "conv3", "conv4", "conv5")
MIDDLE = (*CONV, "fc6", "fc7")

WITHOUT_CONV = Experiment(
    claim="s1-depth",
    arms={"whole": base(), **{f"without {layer}": base(f"no-{layer}") for layer in CONV}},
    answers={f"top-1 gain; {layer}": gain(f"without {layer}", "whole", top=1) for layer in CONV},
)
WITHOUT_MIDDLE = Experiment(
    claim="s7-depth",
    arms={"whole": base(), **{f"without {layer}": base(f"no-{layer}") for layer in MIDDLE}},
    answers={f"top-1 gain; {layer}": gain(f"without {layer}", "whole", top=1) for layer in MIDDLE},
)

EXPERIMENTS = (WITHOUT_CONV, WITHOUT_MIDDLE)
