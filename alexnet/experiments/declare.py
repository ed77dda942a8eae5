"""How an experiment is declared: a claim, its arms, and the answers that are computed from them.

    Experiment(
        claim="s3.3-lrn",
        arms={"with": base(), "without": base("no-norm")},
        answers={"top-1 gain": gain("without", "with", top=1)},
    )

An arm is a training whose scale is still open: `table(scale)` and the claim's data set make a `RunConfig` of it. From the
declarations follow the runs that are needed (each once, whoever asks), what is measured of them, the verdicts, the
scorecard and the chapters. Nothing else knows a claim by name.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from alexnet.config import Activation, Augmentation, CifarNet, ColumnNet, Optimiser, Preset, RunConfig, Topology
from alexnet.experiments.answers import Answer, gain, gap
from alexnet.experiments.scales import OPTIMISERS, SCALES, SCHEDULES, Scale, ScaleTable, table
from alexnet.paper.claims import QUESTIONS, Claim, Value
from alexnet.paper.claims import get as get_claim
from alexnet.preprocessing import SETS
from alexnet.preprocessing.augment import PAPER, SOURCE2012

NO_TEST = "the labels of ILSVRC-2012's test images were never published"
VIEWS: dict[Preset, Augmentation] = {"paper": PAPER, "source2012": SOURCE2012}
OTHER_NET = "; "  # separates the key of a value from the net or variant that an answer is about ("...; conv-local-13pct")


@dataclass(frozen=True)
class Arm:
    """A training whose scale is open: `recipe` makes the config of a scale and a set, `changes` are applied to it."""

    recipe: Callable[[ScaleTable, str], RunConfig]
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None  # a set other than the claim's
    start_from: "Arm | None" = None  # whose weights it begins with
    is_base: bool = False  # the unmodified net, which has more seeds
    scales: tuple[Scale, ...] = SCALES  # at which it runs
    num_seeds: int | None = None  # the first of the scale's; None: all

    def config(self, scale: ScaleTable, dataset: str, seed: int = 0) -> RunConfig:
        """Return the run of one seed, on the set that stands for `dataset` at the scale."""
        config = changed(self.recipe(scale, scale.stand_in(self.data or dataset)), self.changes)
        start = self.start_from and self.start_from.config(scale, dataset, seed)
        return replace(config, seed=seed, start_from=start, epochs=min(config.epochs, scale.most_epochs or config.epochs))

    def seeds(self, scale: ScaleTable, at_least: int = 0) -> tuple[int, ...]:
        """Return the seeds of the arm at the scale, and further ones if these are fewer than `at_least`."""
        return widened((scale.base_seeds if self.is_base else scale.seeds)[: self.num_seeds], at_least)


def widened(seeds: tuple[int, ...], at_least: int) -> tuple[int, ...]:
    """Return consecutive seeds with further ones, until there are `at_least` so many."""
    return tuple(range(seeds[0], seeds[0] + max(len(seeds), at_least)))


@dataclass(frozen=True)
class FastestRate:
    """An arm at the learning rate that makes it reach a training error soonest; the rate is searched (paper 3.1)."""

    arm: Arm
    line: float  # training error, as a fraction
    start: Mapping[Scale, float]  # a first guess of the rate; a scale without one does not run the arm
    expected: Mapping[Scale, float] = field(default_factory=dict)  # to the line, that a plan supposes
    seeds: tuple[int, ...] = (1, 2, 3)  # of the runs that are reported; the search, which has seed 0, is none of them

    def config(self, scale: ScaleTable, dataset: str, rate: float, seed: int) -> RunConfig:
        """Return the run at one rate."""
        return changed(self.arm.config(scale, dataset, seed), {"rate": rate, "stop_at_train_error": self.line})


@dataclass(frozen=True)
class Experiment:
    """How one claim is tested: named arms, and answers by the key of the claim's value that each is compared with."""

    claim: str
    arms: Mapping[str, Arm | FastestRate]
    answers: Mapping[str, Answer] = field(default_factory=dict)
    artefacts: tuple[str, ...] = ()  # measured of every arm, beyond what the answers need
    data: Mapping[Scale, str] = field(default_factory=dict)  # a set in place of the claim's, at some scales
    why_not: Mapping[Scale, str] = field(default_factory=dict)  # the reason, at a scale where it cannot be measured

    def __post_init__(self) -> None:
        for key, answer in self.answers.items():
            self.value(key)
            if unknown := set(answer.arms) - set(self.arms):
                raise ValueError(f"{self.claim}: the answer {key!r} needs the arm {sorted(unknown)[0]!r}, which it lacks.")

    @cached_property
    def about(self) -> Claim:
        """The claim."""
        return QUESTIONS[self.claim] if self.claim in QUESTIONS else get_claim(self.claim)

    def value(self, key: str) -> Value:
        """Return the claim's value that an answer is compared with. Raises UserError for a key that it lacks."""
        return self.about.by_key(key.partition(OTHER_NET)[0])

    def reason(self, scale: Scale) -> str:
        """Return why nothing can be measured at a scale, or at small; "" where something can."""
        at = scale if scale in self.why_not else "small"
        return f"not at scale {at}: {self.why_not[at]}" if at in self.why_not else ""

    def dataset(self) -> str:
        """Return the set of the paper that the claim is about."""
        values = [self.value(key) for key in self.answers] or self.about.values
        return next((v.dataset for v in values if v.dataset), "ilsvrc")

    def stand_in(self, scale: Scale) -> str:
        """Return the set that the arms run on at a scale."""
        return table(scale).stand_in(self.data.get(scale, self.dataset()))

    def config(self, arm: str, scale: Scale, seed: int = 0) -> RunConfig:
        """Return the run of an arm that has a fixed rate."""
        found = self.arms[arm]
        assert isinstance(found, Arm)
        return found.config(table(scale), self.data.get(scale, self.dataset()), seed)

    def configs(self, scale: Scale, seeds: int = 0) -> Iterator[tuple[str, RunConfig]]:
        """Yield (arm, run) for every seed, and at least for `seeds`, of every arm that has a fixed rate at a scale."""
        for name, arm in self.arms.items():
            if isinstance(arm, Arm) and scale in arm.scales:
                yield from ((name, self.config(name, scale, seed)) for seed in arm.seeds(table(scale), seeds))

    def searches(self, scale: Scale) -> Iterator[tuple[str, FastestRate]]:
        """Yield (arm, search) for every arm whose rate is searched at a scale."""
        return ((name, a) for name, a in self.arms.items() if isinstance(a, FastestRate) and scale in a.start)


def against(claim: str, arms: dict[str, Arm], tops: tuple[int, ...] = (1,), is_gap_closed: bool = False) -> Experiment:
    """Return an experiment whose first arm is compared with all others: gains of top-1 or `tops`, and gaps closed."""
    control, *others = arms
    answers = {}
    for arm in others:
        end = f"{OTHER_NET}{arm.removeprefix('without ')}" if len(others) > 1 else ""  # "; conv2"
        answers |= {f"top-{k} gain{end}": gain(arm, control, top=k) for k in tops}
        answers |= {f"gap closed{end}": gap(arm, control)} if is_gap_closed else {}
    return Experiment(claim, arms, answers)


def base(ablation: str = "", preset: Preset = "source2012", **how: Any) -> Arm:
    """Return the two-column net on photographs; `how` are fields of `Arm`, and changes of its config's."""

    def recipe(scale: ScaleTable, dataset: str) -> RunConfig:
        return RunConfig(
            data=dataset,
            net=ColumnNet(preset, scale.width, SETS[dataset].num_classes, ablation),
            optimiser=replace(OPTIMISERS[preset], batch_size=scale.batch_size),
            epochs=scale.epochs,
            schedule=scale.short if scale.short and preset == "source2012" else SCHEDULES[preset],
            augmentation=VIEWS[preset],
        )

    is_changed = ablation or preset != "source2012" or how.keys() - {"data", "scales", "num_seeds"}
    return _arm(recipe, how, is_base=not is_changed)


def cifar(topology: Topology, activation: Activation = "relu", *, epochs: int = 60, **how: Any) -> Arm:
    """Return one of the small nets on CIFAR-10 as Figure 1 trains it (no regularisation); `how` as for `base`."""

    def recipe(scale: ScaleTable, dataset: str) -> RunConfig:
        return RunConfig(
            data=dataset,
            net=CifarNet(topology, activation, num_classes=SETS[dataset].num_classes, width=scale.cifar_width),
            optimiser=Optimiser(batch_size=scale.cifar_batch_size),
            epochs=int(epochs * scale.cifar_epochs[epochs > 60]),
            precision=scale.cifar_precision,
        )

    return _arm(recipe, how)


def _arm(recipe: Callable[[ScaleTable, str], RunConfig], how: dict[str, Any], is_base: bool = False) -> Arm:
    own = {name: how.pop(name) for name in ("data", "start_from", "scales", "num_seeds") if name in how}
    return Arm(recipe, how, is_base=is_base, **own)


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return a config with some fields changed, its own or those of the dataclasses in it; ValueError for unknown ones."""
    for name, value in changes.items():
        parts = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        if name not in parts:
            homes = {p: part for p, part in parts.items() if dataclasses.is_dataclass(part) and p != "start_from"}
            if not (of := next((p for p, part in homes.items() if hasattr(part, name)), None)):
                raise ValueError(f"no field of a {type(config).__name__} is named {name!r}")
            name, value = of, replace(parts[of], **{name: value})
        config = replace(config, **{name: value})
    return config


# Why a claim, or one of its numbers ("claim: key"), has no experiment at any scale.
WHY_NONE = {
    "s1-training-time": "days on two GTX 580 with 3 GB; the chapter on performance sets other machines beside them",
    "table2: top-5 error, 5 CNNs, test": NO_TEST,
    "table2: top-5 error, 7 CNNs*, test": NO_TEST,
}
