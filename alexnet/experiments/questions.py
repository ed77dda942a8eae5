"""Questions of our own, which the paper does not ask but its readers do (`paper/questions.toml`)."""

import itertools

from alexnet.config import Schedule
from alexnet.experiments.answers import difference, gain, gap, neighbour_ratio, ratio, rounding
from alexnet.experiments.declare import Experiment, against, base, cifar
from alexnet.experiments.scales import SCHEDULES, SHORT
from alexnet.experiments.sections import KS, TO_LINE, cifar_published, fastest

SMALL = ("small",)
RATES = {"relu": 0.002, "tanh": 0.016}
TEXT_BY_CODES_SCHEDULE = {"paper, the code's schedule": base(preset="paper", schedule=SHORT, scales=SMALL)}
EXPERIMENTS = (
    against("q-exchange", {"exchange": base(), "no exchange": base("no-exchange")}, tops=KS),
    against("q-lrn-layer2", {"with": base(), "layer 1 only": base("no-norm2")}, tops=KS),
    against("q-fully-connected", {"whole": base()} | {f"without {fc}": base(f"no-{fc}") for fc in ("fc6", "fc7")}),
    # Why the last: a training of few epochs may end before the text's plateau comes, and with it before any drop.
    against("q-text", {"source2012": base(), "paper": base(preset="paper")} | TEXT_BY_CODES_SCHEDULE),
    Experiment(
        claim="q-dropout-rate",
        arms={"with": base(), "with, half the rate": base(rate=0.005, scales=SMALL)}
        | {"without, half the rate": base("no-dropout", rate=0.005, scales=SMALL)},
        answers={
            "top-1 gain": gain("without, half the rate", "with", top=1),
            "gap closed": gap("without, half the rate", "with"),
            "top-1 gain; both at half the rate": gain("without, half the rate", "with, half the rate", top=1),
            "gap closed; both at half the rate": gap("without, half the rate", "with, half the rate"),
        },
    ),
    against("q-bf16", {p: base(precision=p, epochs=5, scales=("small", "paper")) for p in ("fp32", "bf16")}),
    Experiment(
        claim="q-codes",
        arms={"net": base()},
        answers={"neighbours of the true class, by codes over in pixels": neighbour_ratio("net", "codes", "pixels")},
    ),
    # Short trainings: those whose errors were counted from logits in bf16 left no weights to count again.
    Experiment(
        claim="q-bf16-counting",
        arms={name: cifar("19pct", name, epochs=2, scales=SMALL, rate=RATES[name], precision="bf16") for name in RATES},
        answers={f"points added; {name}": rounding(name) for name in RATES},
    ),
    # Trainings of the whole schedule of 2012, longer than those of the ablations.
    Experiment(
        claim="s3.5-architecture",
        arms={
            "source2012": base(epochs=30, schedule=Schedule(), scales=SMALL),
            "source2012, full width": base(epochs=30, schedule=Schedule(), width=1.0, scales=SMALL),
            "paper": base(preset="paper", epochs=12, scales=SMALL),
        },
    ),
)

DETAILS = {  # net changes, or fields of the config
    "alpha undivided": "alpha-literal", "layer 1 normalised after its ReLU": "norm1-after-relu",
    "nothing normalised within maps": "no-map-norm", "sd 0.01 in all layers": "sd-0.01",
    "biases at the rate of weights": {"bias_rate_factor": 1.0}, "biases decay": {"bias_decay": 5e-4},
    "rates by the plateau": {"schedule": SCHEDULES["paper"]}, "a crop for each image": {"images_per_decision": 1},
    "each crop's own mean": {"mean_crop": "own"}, "images undivided": {"divide": False},
}  # fmt: skip
CHANGES = (("", "sd-0.01"), ("", "bias-0.1", "bias-0"), ("", "inputs-over-60"))
STARTS = [" ".join(filter(None, words)) for words in itertools.product(*CHANGES)]
# A first guess of the rate of each.
ACTIVATIONS = {"elu": 0.002, "leaky_relu": 0.002, "softplus": 0.002, "abs-tanh": 0.016, "sigmoid": 0.064}
# alpha is divided by the 9 maps of the window; published: 0.001 and 0.75.
CONSTANTS = {f"beta {beta:g}": {"norm_alpha": 0.001, "norm_beta": beta} for beta in (0.25, 0.5, 1.0)}
CONSTANTS |= {f"alpha {alpha:g}": {"norm_alpha": alpha, "norm_beta": 0.75} for alpha in (0.0001, 0.01)}
CONSTANTS |= {"root mean square": {"norm_alpha": 1.0, "norm_beta": 0.5}}
POOLINGS = {"maxima alone": {"pooling": "max"}, "averages alone": {"pooling": "average"}}


def _against_published(claim: str, topology, decay: dict[str, float], variants: dict[str, dict]) -> Experiment:
    """Return an experiment of variants of a small net against the published one, in 60 epochs."""
    how = {"as published": {}} | variants
    arms = {name: cifar_published(topology, decay, (0.8, 0.9), epochs=60, scales=SMALL, **c) for name, c in how.items()}
    return against(claim, arms)


LATE = (
    against(
        "q-input-scale",
        {"with": base("inputs-over-60", scales=SMALL), "without": base("inputs-over-60 no-norm", scales=SMALL)},
    ),
    Experiment(
        claim="q-details",
        arms={"source2012": base(scales=SMALL)}
        | {
            name: base(scales=SMALL, num_seeds=1, **({"ablation": how} if isinstance(how, str) else how))
            for name, how in DETAILS.items()
        },
        # Why no family: one run each cannot show more than the large ones, and must not widen the intervals of the others.
        answers={f"top-1 gain; {name}": difference((name, {}), ("source2012", {}), top=1) for name in DETAILS},
    ),
    Experiment("q-plateau", {words or "source2012": base(words, epochs=3, schedule=None, scales=SMALL) for words in STARTS}),
    Experiment(
        claim="q-activations",
        arms={"ReLU": fastest("19pct", "relu", small=(0.004, 6))}
        | {name: fastest("19pct", name, small=(rate, 15)) for name, rate in ACTIVATIONS.items()},
        answers={f"epochs over ReLU's; {name}": ratio(name, "ReLU", TO_LINE) for name in ACTIVATIONS},
    ),
    _against_published("q-pooling", "19pct", {}, POOLINGS),
    _against_published("q-constants", "conv-local-11pct", {"fc5": 0.01}, CONSTANTS),
)
