"""Questions of our own, which the paper does not ask but its readers do (`paper/questions.toml`)."""

import itertools

from alexnet.config import Schedule
from alexnet.experiments.answers import CODES, PIXELS, difference, first_epoch_below, gain, neighbour_ratio, ratio, rounding
from alexnet.experiments.declare import Experiment, base, cifar
from alexnet.experiments.scales import SCHEDULES
from alexnet.experiments.section3 import LINE, cifar_published, fastest

SMALL = ("small",)
CODES_OVER_PIXELS = "neighbours of the true class, by codes over in pixels"

EXCHANGE = Experiment(
    claim="q-exchange",
    arms={"exchange": base(), "no exchange": base("no-exchange")},
    answers={f"top-{k} gain": gain("no exchange", "exchange", top=k) for k in (1, 5)},
)
LAYER2 = Experiment(
    claim="q-lrn-layer2",
    arms={"with": base(), "layer 1 only": base("no-norm2")},
    answers={f"top-{k} gain": gain("layer 1 only", "with", top=k) for k in (1, 5)},
)
TEXT = Experiment(
    claim="q-text",
    arms={"source2012": base(), "paper": base(preset="paper")},
    answers={"top-1 gain": gain("paper", "source2012", top=1)},
)
PRECISION = Experiment("q-bf16", {p: base(precision=p, epochs=5, scales=("small", "paper")) for p in ("fp32", "bf16")})
CODES32 = Experiment("q-codes", {"net": base()}, {CODES_OVER_PIXELS: neighbour_ratio("net", CODES, PIXELS)})
# Short trainings: those whose errors were counted from logits in bf16 left no weights to count again.
COUNTING = Experiment(
    claim="q-bf16-counting",
    arms={
        name: cifar("19pct", name, epochs=2, scales=SMALL, rate=rate, precision="bf16")
        for name, rate in (("relu", 0.002), ("tanh", 0.016))
    },
    answers={f"points added; {name}": rounding(name) for name in ("relu", "tanh")},
)
# Trainings of the whole schedule of 2012, longer than those of the ablations.
LONG = Experiment(
    claim="s3.5-architecture",
    arms={
        "source2012": base(epochs=30, schedule=Schedule(), scales=SMALL),
        "source2012, full width": base(epochs=30, schedule=Schedule(), width=1.0, scales=SMALL),
        "paper": base(preset="paper", epochs=12, scales=SMALL),
    },
)
EXPERIMENTS = (EXCHANGE, LAYER2, TEXT, PRECISION, CODES32, COUNTING, LONG)

DETAILS = {  # net changes, or fields of the config
    "alpha undivided": "alpha-literal", "layer 1 normalised after its ReLU": "norm1-after-relu",
    "nothing normalised within maps": "no-map-norm", "sd 0.01 in all layers": "sd-0.01",
    "biases at the rate of weights": {"bias_rate_factor": 1.0}, "biases decay": {"bias_decay": 5e-4},
    "rates by the plateau": {"schedule": SCHEDULES["paper"]}, "a crop for each image": {"images_per_decision": 1},
    "each crop's own mean": {"mean_crop": "own"}, "images undivided": {"divide": False},
}  # fmt: skip
WALK = Experiment(
    claim="q-details",
    arms={"source2012": base(scales=SMALL)}
    | {
        name: base(scales=SMALL, num_seeds=1, **({"ablation": how} if isinstance(how, str) else how))
        for name, how in DETAILS.items()
    },
    # Why no family: one run each cannot show more than the large ones, and must not widen the intervals of the others.
    answers={f"top-1 gain; {name}": difference((name, {}), ("source2012", {}), top=1) for name in DETAILS},
)
INPUT_SCALE = Experiment(
    claim="q-input-scale",
    arms={"with": base("inputs-over-60", scales=SMALL), "without": base("inputs-over-60 no-norm", scales=SMALL)},
    answers={"top-1 gain": gain("without", "with", top=1)},
)
CHANGES = (("", "sd-0.01"), ("", "bias-0.1", "bias-0"), ("", "inputs-over-60"))
STARTS = [" ".join(filter(None, words)) for words in itertools.product(*CHANGES)]
PLATEAU = Experiment(
    "q-plateau", {words or "source2012": base(words, epochs=3, schedule=None, scales=SMALL) for words in STARTS}
)
# A first guess of the rate of each.
ACTIVATIONS = {"elu": 0.002, "leaky_relu": 0.002, "softplus": 0.002, "abs-tanh": 0.016, "sigmoid": 0.064}
OTHER_ACTIVATIONS = Experiment(
    claim="q-activations",
    arms={"ReLU": fastest("19pct", "relu", small=(0.004, 6))}
    | {name: fastest("19pct", name, small=(rate, 15)) for name, rate in ACTIVATIONS.items()},
    answers={f"epochs over ReLU's; {name}": ratio(name, "ReLU", of=first_epoch_below(LINE)) for name in ACTIVATIONS},
)
CONSTANTS = {  # alpha, divided by the 9 maps of the window, and beta; published: 0.001 and 0.75
    "beta 0.25": (0.001, 0.25), "beta 0.5": (0.001, 0.5), "beta 1": (0.001, 1.0), "alpha 0.0001": (0.0001, 0.75),
    "alpha 0.01": (0.01, 0.75), "root mean square": (1.0, 0.5),
}  # fmt: skip


def _against_published(claim: str, topology, decay: dict[str, float], variants: dict[str, dict]) -> Experiment:
    """Return an experiment of variants of a small net against the published one, in 60 epochs."""
    arms = {
        name: cifar_published(topology, decay, (0.8, 0.9), epochs=60, scales=SMALL, **changes)
        for name, changes in ({"as published": {}} | variants).items()
    }
    return Experiment(claim, arms, {f"top-1 gain; {name}": gain(name, "as published", top=1) for name in variants})


POOLINGS = {"maxima alone": {"pooling": "max"}, "averages alone": {"pooling": "average"}}
POOLING = _against_published("q-pooling", "19pct", {}, POOLINGS)
ALPHA_BETA = _against_published(
    "q-constants",
    "conv-local-11pct",
    {"fc5": 0.01},
    {name: {"norm_alpha": alpha, "norm_beta": beta} for name, (alpha, beta) in CONSTANTS.items()},
)
IDEAS = (INPUT_SCALE, WALK, PLATEAU, OTHER_ACTIVATIONS, POOLING, ALPHA_BETA)
