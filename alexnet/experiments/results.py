"""From recorded runs to answers: what the arms of an experiment measured at a scale, and the verdicts on it.

Nothing is trained here. A result that needs runs which are missing has no interval; its verdict says so.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import pandas as pd

from alexnet.config import RunConfig
from alexnet.experiments import artefacts, plan, runs
from alexnet.experiments.answers import GAP, Net, Where
from alexnet.experiments.declare import OTHER_NET, Experiment
from alexnet.experiments.rate_search import Search
from alexnet.experiments.runs import Run
from alexnet.experiments.scales import SCALES, Scale, stamp, table
from alexnet.experiments.statistics import Interval, Verdict, family_intervals, judge, on, rate_interval, with_unit
from alexnet.files import Rows
from alexnet.paper.claims import Value

COLUMNS = ["arm", "seed", "run", "split", "views", "k", "wrong", "total"]


@dataclass(frozen=True)
class Result:
    """One answer of an experiment at a scale, beside the value that it is compared with."""

    experiment: Experiment
    scale: Scale
    key: str
    about: str  # the value and the net or variant, in words
    value: Value
    where: Where
    interval: Interval | None
    verdict: Verdict
    ours: str  # the interval in words, or why there is none of runs that ended; "" where none did
    runs: tuple[str, ...]  # the names of those that it rests on


class Results:
    """What is recorded of an experiment at a scale; with `tied`, of an arm at a rate that nearly tied with the best."""

    def __init__(self, experiment: Experiment, scale: Scale, tied: Mapping[str, float] | None = None) -> None:
        self.experiment, self.scale, self.tied = experiment, scale, tied or {}
        self.kind: tuple[Any, ...] = ()  # `Run.kind` of all its runs, once they are chosen

    @cached_property
    def runs(self) -> dict[str, dict[int, Run]]:
        """Arm -> seed -> run that ended, of declared seeds and those after them; of a searched arm, at the rate that won."""
        found: dict[str, dict[int, Run]] = {arm: {} for arm in self.experiment.arms}
        for arm in self.hashes:
            first_seed = self.experiment.arms[arm].seeds(table(self.scale))[0]
            found[arm] = _ended(self.experiment.config(arm, self.scale), first_seed)
        rates = {arm: search.best_rate for arm, search in self.searches.items() if search.bracketed} | self.tied
        return found | {arm: self.at_rate(arm, rate) for arm, rate in rates.items()}

    def of_kind(self, kind: tuple[Any, ...]) -> "Results":
        """Return the same of the runs that are of one kind."""
        alike = copy(self)
        alike.kind = kind
        alike.runs = {arm: {seed: r for seed, r in found.items() if r.kind == kind} for arm, found in self.runs.items()}
        return alike

    def at_rate(self, arm: str, rate: float) -> dict[int, Run]:
        """Return seed -> run that ended of a searched arm at one rate, the best or one that nearly tied with it."""
        search, at = self.experiment.arms[arm], table(self.scale)
        return _ended(search.config(at, self.experiment.dataset(), rate, search.seeds[0]), search.seeds[0])

    @cached_property
    def searches(self) -> dict[str, Search]:
        """Arm -> search for its rate, as far as it is recorded."""
        return {arm: plan.search_of(self.experiment, s, self.scale) for arm, s in self.experiment.searches(self.scale)}

    def rates(self, arm: str, where: Where, top: int) -> dict[int, float]:
        """Return seed -> error in percent of the arm's finished runs, or the gap in points."""
        if top == GAP:
            seen, held = (self.rates(arm, each, 1) for each in where.gap)
            return {seed: held[seed] - seen[seed] for seed in seen if seed in held}
        return {seed: 100 * wrong / total for seed, (wrong, total) in self.counts(arm, where, top).items()}

    def counts(self, arm: str, where: Where, top: int) -> dict[int, tuple[int, int]]:
        """Return seed -> (wrong, total)."""
        asked = (where.split, where.views, top)
        rows = ((seed, row) for seed, run in sorted(self.runs[arm].items()) for row in artefacts.read_errors(run.folder))
        return {seed: (row["wrong"], row["total"]) for seed, row in rows if (row["split"], row["views"], row["k"]) == asked}

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Arm -> hash of its config whatever the seed, of those that run here at a fixed rate."""
        return {arm: runs.config_hash(c, seed=False) for arm, c in self.experiment.configs(self.scale)}

    def gain(self, without: str, with_: str, where: Where, top: int) -> Interval | None:
        """Return by how many points an arm differs from its control, with the interval that it has in the `family`."""
        return family(self.hashes[with_], self.kind, self.scale, where, top).get(self.hashes.get(without))

    def predictions(self, arm: str, where: Where) -> list[Net]:
        """Return (probabilities (N, K), labels (N,)) of the arm's runs in the order of their seeds, the declared ones."""
        # Why not all: an ensemble has so many nets of each arm, whatever further seeds there are.
        declared = self.experiment.arms[arm].seeds(table(self.scale))
        found = self.measured(arm, where.predicted)
        return [(a["probabilities"], a["labels"]) for seed, a in found.items() if seed in declared]

    def measured(self, arm: str, artefact: str) -> dict[int, Any]:
        """Return seed -> the arrays of an artefact."""
        found = {seed: runs.whole(artefacts.read, run.folder, artefact) for seed, run in sorted(self.runs[arm].items())}
        return {seed: arrays for seed, arrays in found.items() if arrays is not None}

    def answers(self) -> list[Result]:
        """Return every answer with its verdict, in the order of declaration; of rates that nearly tied, at each of them."""
        found = []
        for key, answer in self.experiment.answers.items():
            ties = [{arm: rate} for arm in answer.arms if arm in self.searches for rate in self.searches[arm].ties]
            found += [each.answer(key) for each in (self, *(Results(self.experiment, self.scale, tie) for tie in ties))]
        return found

    def answer(self, key: str) -> Result:
        """Return one answer with its verdict."""
        answer, where = self.experiment.answers[key], plan.where(self.experiment, key, self.scale)
        ended = {run.name: run for arm in answer.arms for run in self.runs[arm].values()}
        # Why of one kind: devices and dtypes round differently. The one with the most seeds counts; of equals the first's.
        seeds = {run.kind: sorted(r.seed for r in ended.values() if r.kind == run.kind) for run in ended.values()}
        found = {kind: answer.interval(self.of_kind(kind), where) for kind in sorted(seeds, key=repr)}
        kind = max(found, key=lambda k: (found[k].n if found[k] else 0, len(seeds[k]), -seeds[k][0]), default=())
        interval, left_out = found.get(kind), len(ended) - len(seeds.get(kind, ()))
        lost = ", ".join(name for name, run in ended.items() if (run.status, run.kind) == ("diverged", kind))
        finished = [{run.kind for run in self.runs[arm].values() if run.status == "finished"} for arm in answer.arms]
        is_mixed = interval is None and all(finished) and not set.intersection(*finished)
        value, at = self.experiment.value(key), stamp(self.scale)
        key += "".join(f"{OTHER_NET}{arm.partition(',')[0]} at {rate:g}" for arm, rate in self.tied.items())
        about = key.replace(OTHER_NET, ", ")
        named = replace(value, name=about, subject="")
        verdict = judge(named, interval, dataset=where.data, split=where.split, views=where.views, scale=at)
        ours = with_unit(interval, value) if interval else "of runs that differ in device or counting" * is_mixed
        ours += f" ({left_out} of another kind left out)" if interval and left_out else ""
        ours += f" (diverged: {lost})" if lost else ""
        ours += f" (counted from {kind[-1]})" if interval and kind[-1] else ""
        if ours and not interval:
            word = "not compared" if is_mixed else "diverged"
            verdict = Verdict(word, f"{word.capitalize()}: {about} {ours}.")
        of = tuple(name for name, run in ended.items() if is_mixed or run.kind == kind) if ours else ()
        return Result(self.experiment, self.scale, key, about, value, where, interval, verdict, ours, of)

    @cached_property
    def shown(self) -> dict[str, dict[int, Run]]:
        """Arm -> seed -> run, as `runs`, but for those that every answer leaves out because they are of another kind."""
        compared = {name for result in self.answers() for name in result.runs}
        kinds = {run.kind for of in self.runs.values() for run in of.values() if run.name in compared or not compared}
        return {arm: {seed: run for seed, run in of.items() if run.kind in kinds} for arm, of in self.runs.items()}

    def frame(self) -> pd.DataFrame:
        """Return the exact counts measured of finished runs, a row for each arm, seed, split, views and k."""
        return self._table(lambda run: artefacts.read_errors(run.folder), COLUMNS)

    def curves(self) -> pd.DataFrame:
        """Return what was counted after each epoch: arm, seed, epoch, split, views, k, wrong, total, error."""
        return self._table(lambda run: run.metrics, ["epoch", *COLUMNS])

    def _table(self, rows_of: Callable[[Run], Rows], columns: list[str]) -> pd.DataFrame:
        rows = [
            {"arm": arm, "seed": seed, "run": run.name} | row
            for arm, by_seed in self.shown.items()
            for seed, run in sorted(by_seed.items())
            for row in rows_of(run)
        ]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.assign(error=frame["wrong"] / frame["total"])


def _ended(config: RunConfig, first_seed: int) -> dict[int, Run]:
    """Return, by seed, the runs of a config whatever its seed that finished or diverged, from the first seed on."""
    # A run that diverged has no errors, so that gains leave it out; in a ratio it is one that never arrives.
    recorded = (run for run in runs.recorded(runs.name_of(config).rpartition("/")[0]) if run.status in runs.FINAL)
    found = {run.seed: run for run in recorded if runs.whole(artefacts.read_errors, run.folder) is not None}
    return {seed: found[seed] for seed in sorted(found) if seed >= first_seed}


@cache
def family(control: str, kind: tuple[Any, ...], scale: Scale, where: Where, top: int, but: str = "") -> dict[str, Interval]:
    """Return, by hash, the difference of each arm (`but` one) to the control over all experiments that compare with it."""
    # All gains over one control, of runs of a kind, on one set in one kind of views, are one family: their intervals hold
    # together (Dunnett).
    from alexnet.experiments import EXPERIMENTS

    # The variance is pooled over all arms that were ever set against the control, whatever else was asked of them.
    found: dict[str, list[float]] = {}
    declared: set[str] = set()
    for experiment in EXPERIMENTS:
        results = Results(experiment, scale)
        for key, answer in experiment.answers.items():
            without, with_, counted = answer.gain or ("", "", 0)
            if results.hashes.get(with_) != control or without not in results.hashes:
                continue
            if counted == top and plan.where(experiment, key, scale) == where:
                declared.add(results.hashes[without])
            alike = results.of_kind(kind)
            found |= {alike.hashes[arm]: list(alike.rates(arm, where, top).values()) for arm in answer.arms}
    base = found.pop(control, [])
    compared = {digest: rates for digest, rates in found.items() if rates and digest != but}
    others = [compared.pop(digest) for digest in compared.keys() - declared]
    # Why all that are declared: the number of comparisons must not grow as other arms of the family are recorded.
    return family_intervals(compared, base, len(declared - {control}), *others) if base and compared else {}


def recorded_scale(experiment: Experiment) -> Scale | None:
    """Return the largest scale at which an experiment has a result, or None; of scales with the same runs, the smallest."""
    # On CIFAR-10 the same runs stand at small and at paper.
    used = {}
    for scale in SCALES:
        found = Results(experiment, scale)
        names = (run.name for by_seed in found.shown.values() for run in by_seed.values())
        used[scale] = [result.runs for result in found.answers()] if experiment.answers else list(names)
    largest = next(filter(any, reversed(used.values())), None)
    return next((scale for scale in SCALES if largest and used[scale] == largest), None)


def yours(claim: str | None = None, scale: Scale | None = None) -> list[tuple[str, ...]]:
    """Return (claim, what, error and interval, where, scale) of trainings that a user made by changing an arm of a claim."""
    found: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for run in runs.recorded():
        of, arm, at = run.facts.get("arm_of") or ("", "", "")
        if of and claim in (None, of) and scale in (None, at) and run.status == "finished":
            data, last = run.config.data, [row for row in run.metrics if row["epoch"] == run.manifest["epochs"]]
            for row in [r for r in runs.whole(artefacts.read_errors, run.folder) or last if r["split"] != "train"]:
                what = f"{run.folder.parent.name}, as {arm!r}: top-{row['k']} error"
                where = on(data, row["split"], row["views"])
                found.setdefault((of, what, where, at), []).append((row["wrong"], row["total"]))
    return [(of, what, str(rate_interval(n)).replace(" (", " % ("), *at) for (of, what, *at), n in found.items()]
