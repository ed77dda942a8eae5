"""What the declared experiments need at a scale: each distinct run once, its state, what it costs here."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from tabulate import tabulate

from alexnet import files
from alexnet.config import CifarNet, ColumnNet, Net, RunConfig, UserError, nearest, reseeded
from alexnet.experiments import artefacts, runs
from alexnet.experiments.answers import Where
from alexnet.experiments.declare import Arm, Experiment, FastestRate, widened
from alexnet.experiments.rate_search import MetricsOf, Search, search_rate
from alexnet.experiments.readiness import device
from alexnet.experiments.scales import SCALES, Scale, table
from alexnet.files import Rows
from alexnet.model import layers_of
from alexnet.paper.arithmetic import operations
from alexnet.preprocessing import SETS, is_prepared, open_set

EVALUATION_SHARE = 1 / 3  # a forward pass beside forward, backward and update
STARTABLE = ("missing", "half done", "not measured")  # states in which there is something to do that nobody does


@dataclass
class Wanted:
    """One run that experiments want: for which claims, how far, and what is to be measured of it."""

    config: RunConfig
    claims: list[str]
    expected_epochs: float  # the run may end before its last epoch
    epoch_limit: int | None = None
    artefacts: set[str] = field(default_factory=set)

    name = property(lambda self: runs.name_of(self.config))

    # "done", "not measured" (trained, its weights are here), "in work", "half done", "missing", "damaged"
    state = property(lambda self: runs.whole(self._state) or "damaged")

    def _state(self) -> str:
        run, is_busy = runs.read(self.config), files.is_locked(runs.lock_of(self.config))
        _ = run and run.metrics  # Why: they may be damaged, too
        if run is not None and run.is_done(self.epoch_limit):
            lacks = run.status == "finished" and self.unmeasured() and weights_in(run.folder)
            return ("in work" if is_busy else "not measured") if lacks else "done"
        return "in work" if is_busy else "half done" if self.epochs_done() else "missing"

    def unmeasured(self) -> list[str]:
        """Return the artefacts that are not there."""
        return sorted(name for name in self.artefacts if not artefacts.is_measured(runs.folder_of(self.config), name))

    def epochs_done(self) -> int:
        """Return how many epochs need not be trained again: those before the checkpoint."""
        run = runs.read_whole(self.config)
        return run.manifest["epochs"] if run is not None and weights_in(run.folder) else 0


def check_threads(config: RunConfig, threads: int | None) -> None:
    """Raise UserError for other threads than those with which a half-done run resumes, for the sake of equal bits."""
    run = runs.read_whole(config)
    kept = run.manifest["segments"][-1].get("threads") if run and not run.is_done() and weights_in(run.folder) else None
    if threads and kept and threads != kept:
        why = f"{run.name} resumes with its {kept} threads, on which its numbers depend. Leave out --threads"
        raise UserError(f"{why}, or begin it anew elsewhere: ALEXNET_RUNS=DIR {runs.command_of(config, threads)}")


def weights_in(folder: Path) -> list[Path]:
    """Return a run's files with weights on this machine; only reading them tells whether they are whole."""
    from alexnet.training import checkpoint  # Why here, as below: chapters need a plan, and can do without torch.

    named = [folder / name for name in (checkpoint.WEIGHTS, checkpoint.CURRENT, checkpoint.PREVIOUS)]
    return [file for file in named if file.is_file()]


def can_begin(config: RunConfig) -> bool:
    """Return whether the run that this one begins with is finished, if there is one, and its weights are here."""
    before = config.start_from and runs.read_whole(config.start_from)
    is_over = before is not None and before.status == "finished" and bool(weights_in(before.folder))
    return config.start_from is None or is_over


def experiments_of(claims: Iterable[str] | None = None) -> list[Experiment]:
    """Return the experiments that test `claims`, or all. Raises UserError for a claim without one."""
    from alexnet.experiments import EXPERIMENTS

    known = dict.fromkeys(experiment.claim for experiment in EXPERIMENTS)
    for claim in claims or ():
        if claim not in known:
            raise UserError(f"No experiment tests {claim!r}{nearest(claim, known)}. With experiments: {', '.join(known)}.")
    return [experiment for experiment in EXPERIMENTS if claims is None or experiment.claim in claims]


def wanted(scale: Scale, claims: Iterable[str] | None = None, assume: bool = False, seeds: int = 0) -> list[Wanted]:
    """Return every run that experiments on `claims` (None: all) want, each once, every arm with `seeds` seeds or more.

    Of a search for a rate, whose runs depend on results, those that are known to be needed; with `assume` the first rate is
    supposed to be the best, as for a plan, and its neighbours to be overtaken.
    """
    found: dict[str, Wanted] = {}

    def want(one: Wanted) -> None:
        if (start := one.config.start_from) is not None:
            want(Wanted(start, one.claims, start.epochs))
        entry = found.setdefault(one.name, one)
        if one.epoch_limit is None:  # a run that one experiment bounds and another wants whole is wanted whole
            entry.epoch_limit = None
        entry.artefacts |= one.artefacts
        entry.claims = list(dict.fromkeys([*entry.claims, *one.claims]))

    for each in experiments_of(claims):
        for arm, config in each.configs(scale, seeds):
            want(Wanted(config, [each.claim], config.epochs, artefacts=set(artefacts_of(each, scale, arm))))
        for _, search in each.searches(scale):
            for one in _search_runs(each, search, scale, assume, seeds):
                want(one)
    return list(found.values())


def artefacts_of(experiment: Experiment, scale: Scale, arm: str) -> list[str]:
    """Return the names of what an experiment wants measured of the runs of an arm."""
    names = [name.replace("held-out", held_out(experiment.stand_in(scale))) for name in experiment.artefacts]
    for key, answer in experiment.answers.items():
        if arm in answer.arms:
            names += answer.artefacts(where(experiment, key, scale))
    return list(dict.fromkeys(names))


def where(experiment: Experiment, key: str, scale: Scale) -> Where:
    """Return where an answer is measured at a scale: on the claim's split, in its views, as far as the set has them."""
    value, data = experiment.value(key), experiment.stand_in(scale)
    split = value.split if value.split in SETS[data].counts else held_out(data)
    arm = next((a for a in experiment.arms.values() if isinstance(a, Arm)), None)
    whole = arm is None or arm.config(table(scale), experiment.dataset()).augmentation is None
    return Where(data, split, "whole" if whole else value.views or ("" if split == "train" else "ten"))


def held_out(data: str) -> str:
    """Return the split of a set on which errors are measured where the claim does not say which, or the set lacks it."""
    return "val" if "val" in SETS[data].counts else "test"


def recorded_metrics(config: RunConfig, limit: int | None) -> Rows | None:
    """Return the metrics of a run that is done, without training anything."""
    run = runs.read_whole(config)
    return run.metrics if run is not None and run.is_done(limit) else None


def search_of(experiment: Experiment, search: FastestRate, scale: Scale, metrics_of: MetricsOf = recorded_metrics) -> Search:
    """Return a search as far as its runs are recorded, or with what `metrics_of` gives."""
    config_of = partial(search.config, table(scale), experiment.dataset())
    return search_rate(config_of, search.line, search.start[scale], metrics_of)


def _search_runs(e: Experiment, search: FastestRate, scale: Scale, assume: bool, num_seeds: int) -> list[Wanted]:
    """Return the runs of a search and those of the seeds at the rate that won, as far as known."""
    asked: list[Wanted] = []
    expected = search.expected.get(scale, 10.0)

    def metrics_of(config: RunConfig, limit: int | None) -> Rows | None:
        asked.append(Wanted(config, [e.claim], expected if limit is None else min(limit, expected), limit))
        rows = recorded_metrics(config, limit)
        if rows is not None or not assume:
            return rows
        # Why: a run that another one bounds is supposed to be overtaken.
        wrong = [99, 100 if limit is not None else int(100 * search.line)]
        return [{"epoch": at, "split": "train", "views": "whole", "k": 1, "wrong": w, "total": 100}
                for at, w in zip((0, math.ceil(expected)), wrong, strict=True)]  # fmt: skip

    result = search_of(e, search, scale, metrics_of)
    if result.best_rate is not None and result.bracketed:
        config_of, seeds = partial(search.config, table(scale), e.dataset()), widened(search.seeds, num_seeds)
        rates = [result.best_rate, *result.ties]
        asked += [Wanted(config_of(rate, seed), [e.claim], expected) for rate in rates for seed in seeds]
    return asked


def seconds_per_epoch(config: RunConfig) -> float:
    """Return the estimated seconds of one epoch of `config` on this machine, its evaluations included."""
    counts, net = SETS[config.data].counts, config.net
    if not counts:  # a set of class folders
        counts = {name: len(split) for name, split in open_set(config.data, verify=False).splits.items()}
    evaluated = counts.get("val", counts.get("test", 0)) + counts["train"] * (config.stop_at_train_error is not None)
    # Why: to time every ablation, activation and number of classes would take longer than a plan should.
    if isinstance(net, ColumnNet):
        net = ColumnNet("source2012", net.width)
        whole, timed = (sum(operations(layers_of(each)).values()) for each in (config.net, net))
        share = whole / timed
    else:
        net, share = CifarNet(net.topology, width=net.width), (net.image_side / CifarNet.image_side) ** 2
    each = share * _seconds_per_image(net, config.optimiser.batch_size, config.precision)
    return (counts["train"] + EVALUATION_SHARE * evaluated) * each


@cache
def _seconds_per_image(net: Net, batch_size: int, precision: str) -> float:
    """Measure steps of training on made-up images, where and as they will be done; the shortest counts."""
    import torch

    from alexnet.model import StepKey
    from alexnet.training.distributed import Group
    from alexnet.training.precision import decide, use_kernels
    from alexnet.training.step import Learner

    where = device()
    use_kernels(True, Group(where))
    config = RunConfig(net=net, optimiser=replace(RunConfig().optimiser, batch_size=batch_size))
    learner = Learner(config, decide(precision, where.type)["choice"], Group(where))
    side = learner.net.image_side
    if where.type == "cpu" and side > 100:
        batch_size = min(batch_size, 8)  # Why: a whole batch of the wide net takes seconds, and a plan should not
    images = torch.zeros(batch_size, 3, side, side, device=where).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=where)
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < 0.5:  # Why: the first steps of a small net are mostly something else.
        start = time.perf_counter()
        learner.step(images, labels, StepKey(0, 0, len(taken)))[0].item()
        taken.append(time.perf_counter() - start)
    return min(taken) / batch_size


def as_time(seconds: float) -> str:
    """Return seconds as a person says them: "40 s", "12 min", "3.5 h", "12 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def find(name: str) -> RunConfig:
    """Return the run called `name`: one that is recorded, or that an experiment wants at some scale. Raises UserError."""
    name = name.removeprefix("runs/").rstrip("/")
    if (run := runs.read(name)) is not None:
        return run.config
    configs = [each.config for scale in SCALES for each in wanted(scale, assume=True)]
    if (seed := name.rpartition("/seed-")[2]).isdecimal():  # another repetition of a run that is known
        configs += [reseeded(config, int(seed)) for config in configs]
    known = {runs.name_of(config): config for config in configs}
    if name not in known:
        raise UserError(f"There is no run {name!r}{nearest(name, known)} (`alexnet plan` lists them).")
    return known[name]


def config_of(claim: str, arm: str | None, scale: Scale, seed: int) -> RunConfig:
    """Return the run of a claim's arm, at the rate that a search for it begins with. Raises UserError with the others."""
    if claim in ("", "all"):
        raise UserError(f"--arm {arm} is an arm of which claim? Say CLAIM --arm {arm} (`alexnet list` shows all).")
    arms = {name: (experiment, each) for experiment in experiments_of([claim]) for name, each in experiment.arms.items()}
    here = [name for name, (_, each) in arms.items() if scale in (each.scales if isinstance(each, Arm) else each.start)]
    if arm not in here:
        hint = nearest(arm, here) if arm else ""
        raise UserError(f"{claim} has no arm {arm!r} at scale {scale}{hint}. Its arms: {', '.join(map(repr, here))}.")
    experiment, found = arms[arm]
    if isinstance(found, Arm):
        return experiment.config(arm, scale, seed)
    return found.config(table(scale), experiment.dataset(), found.start[scale], seed)


def artefacts_wanted(config: RunConfig) -> set[str]:
    """Return the names of all that experiments want measured of a run, at any scale."""
    name = runs.name_of(reseeded(config, 0))  # a seed that every arm with artefacts has
    found = {artefact for scale in SCALES for each in wanted(scale) if each.name == name for artefact in each.artefacts}
    if (run := runs.read(config)) is None or "arm_of" not in run.facts or not is_prepared(config.data):
        return found
    claim, arm, scale = run.facts["arm_of"]  # a training of one's own: errors where the arm's are, if the set has them
    splits = open_set(config.data, verify=False).splits
    names = [
        name for e in experiments_of() if (e.claim, arm in e.arms) == (claim, True) for name in artefacts_of(e, scale, arm)
    ]
    return found | {name for name in names if name.startswith("errors") and name.split("/")[1] in splits}


def commands(scale: Scale, claims: Iterable[str] | None = None, seeds: int = 0) -> list[str]:
    """Return one command for each run that can begin now; what needs their results is listed when they are done."""
    open_ = [each for each in wanted(scale, claims, seeds=seeds) if each.state in STARTABLE and can_begin(each.config)]
    return [runs.command_of(each.config) for each in open_]


def as_text(scale: Scale, claims: Iterable[str] | None = None, seeds: int = 0) -> str:
    """Return the plan of a scale: a line for each run, then time and disk."""
    import torch

    from alexnet.model.net import blank, count_parameters

    lines, missing, left, asked = [], [], 0.0, wanted(scale, claims, assume=True, seeds=seeds)
    for each in asked:
        state, seconds = each.state, 0.0
        if state not in ("done", "not measured"):  # in these there is nothing left to train
            missing.append(each.config)
            seconds = max(each.expected_epochs - each.epochs_done(), 1) * seconds_per_epoch(each.config)
        more = f" and {len(each.claims) - 1} more" if each.claims[1:] else ""
        lines.append((each.name, state, as_time(seconds) if seconds else "", each.claims[0] + more))
        left += seconds
    text = tabulate(lines, headers=("run", "state", "time here", "for"), disable_numparse=True)
    if not missing:
        return f"{text}\nEvery run is done."
    sets = {config.data for config in missing if not is_prepared(config.data)}
    with torch.device("meta"):
        weights = sum(4 * count_parameters(blank(config.net)) for config in missing)  # bytes, in fp32
    disk = (weights + sum(SETS[name].num_bytes for name in sets)) / 1e9
    text += f"\nAbout {as_time(left)} of training on this machine, as busy as it is, run by run; {disk:.1f} GB of disk."
    return text + _unlike((runs.read_whole(each.config) for each in asked), scale)


def _unlike(recorded: Iterable[runs.Run | None], scale: Scale) -> str:
    """Return a line that trainings here will not be compared with those recorded where these computed otherwise."""
    from alexnet.training.precision import decide

    is_cpu, choice = device().type == "cpu", decide("auto", device().type)["choice"]
    ended = [run for run in recorded if run is not None and run.status in runs.FINAL]
    kinds = [(run.kind[0], run.kind[1] if run.config.precision == "auto" else choice) for run in ended]
    others = sum(kind != (is_cpu, choice) for kind in kinds)
    why = f"Recorded runs from another kind of device or precision than this machine's: {others}. New ones are not compared"
    return f"\n{why} with them. To train all anew: make reproduce SCALE={scale} FRESH=1" if others else ""


def arms_as_text(scale: Scale, claims: Iterable[str] | None = None) -> str:
    """Return every claim with an experiment, its arms, and the states of their runs by seed."""
    states = {each.name: each.state for each in wanted(scale, claims)}
    lines = []
    for experiment in experiments_of(claims):
        arms: dict[str, list[str]] = {}
        for arm, config in experiment.configs(scale):
            arms.setdefault(arm, []).append(f"{config.seed}: {states[runs.name_of(config)]}")
        for arm, search in experiment.searches(scale):
            result = search_of(experiment, search, scale)
            arms[arm] = [f"{result.said}, {len(result.metrics)} tried"]
        lines += [(experiment.claim if i == 0 else "", arm, ", ".join(seeds)) for i, (arm, seeds) in enumerate(arms.items())]
    return tabulate(lines, headers=("claim", "arm", "runs by seed"), disable_numparse=True)
