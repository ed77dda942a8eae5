"""Section 6: tables 1 and 2, ten views, ensembles, pre-training, Fall 2009, figures 3 and 4."""

from alexnet.experiments.answers import (
    FC7,
    PIXELS,
    difference,
    divided,
    ensemble,
    ensemble_gain,
    error,
    gain,
    neighbour_ratio,
)
from alexnet.experiments.declare import Experiment, base

KS = (1, 5)

TABLE1 = Experiment(
    claim="table1",
    arms={"CNN": base()},
    answers={f"top-{k} error, CNN": error("CNN", top=k) for k in KS},
)
TEN_VIEWS = Experiment(
    claim="s6-ten-crop",
    arms={"net": base()},
    answers={f"top-{k} error, centre": error("net", top=k) for k in KS}
    | {f"top-{k} gain": difference(("net", {"views": "central"}), ("net", {"views": "ten"}), top=k) for k in KS},
    artefacts=("by-views/held-out",),
)
VAL_AND_TEST = Experiment(
    claim="s6-val-test",
    arms={"net": base(scales=("paper",))},
    answers={
        f"difference of validation and test error, top-{k}": difference(
            ("net", {"split": "val"}), ("net", {"split": "test"}), k
        )
        for k in KS
    },
    why_not=dict.fromkeys(("toy", "small"), "no set at this scale has two held-out splits with labels"),
)

# The paper's stars: pre-trained on the whole of Fall 2011 with a sixth layer, then fine-tuned. At `small` the 20 classes of
# ImageNet-20 contain Imagenette's 10 as Fall 2011 contains ILSVRC's.
STARRED = base("conv6", start_from=base("conv6", data="fall2011"))
TABLE2 = Experiment(
    claim="table2",
    arms={"1 CNN": base(), "1 CNN*": STARRED},
    answers={f"top-{k} error, 1 CNN": error("1 CNN", top=k) for k in KS}
    | {key: ensemble(("1 CNN",), nets=5, top=k) for k, key in ((1, "top-1 error, 5 CNNs"), (5, "top-5 error, 5 CNNs, val"))}
    | {f"top-{k} error, 1 CNN*": error("1 CNN*", top=k) for k in KS}
    | {
        key: ensemble(("1 CNN", "1 CNN*"), nets=7, top=k)
        for k, key in ((1, "top-1 error, 7 CNNs*"), (5, "top-5 error, 7 CNNs*, val"))
    },
    data={"small": "imagenette"},
)
ENSEMBLE = Experiment(
    claim="s6-ensemble",
    arms={"net": base()},
    answers={f"top-{k} gain": ensemble_gain("net", nets=5, top=k) for k in KS},
)
PRETRAINING = Experiment(
    claim="s6-pretraining",
    arms={"1 CNN": base(), "1 CNN*": STARRED},
    answers={f"top-{k} gain": gain("1 CNN", "1 CNN*", top=k) for k in KS},
    data={"small": "imagenette"},
)
FALL2009 = Experiment(
    claim="s6-fall2009",
    arms={"CNN": base("conv6", scales=("toy", "paper"))},
    answers={f"top-{k} error, CNN": error("CNN", top=k) for k in KS},
    why_not={"small": "no set at this scale stands for ten thousand classes"},
)

# The net with one column is the control: whether its conv1 has an axis of colour without a border to divide at.
FIGURE3 = Experiment(
    claim="fig3-kernels",
    arms={"net": base(), "one column": base("one-column")},
    answers={"runs with a grey and a coloured column": divided("net")},
    artefacts=("kernels", "connections"),
)
FIGURE4_LABELS = Experiment(claim="fig4-labels", arms={"net": base()}, artefacts=("predictions/held-out/ten",))
FIGURE4_NEIGHBOURS = Experiment(
    claim="fig4-neighbours",
    arms={"net": base()},
    answers={"neighbours of the true class, in fc7 over in pixels": neighbour_ratio("net", FC7, PIXELS)},
)

EXPERIMENTS = (
    TABLE1, TEN_VIEWS, VAL_AND_TEST, TABLE2, ENSEMBLE, PRETRAINING, FALL2009, FIGURE3, FIGURE4_LABELS, FIGURE4_NEIGHBOURS,
)  # fmt: skip
