"""Figure 1: what the runs say about ReLU against tanh, as the chapter shows it."""

import math
from collections import Counter
from dataclasses import dataclass

from IPython.display import Markdown
from matplotlib.figure import Figure

from alexnet.claims import figures, paper, runs, search, verdicts
from alexnet.claims.experiments import BEGINNINGS, LINE
from alexnet.claims.search import StudyResult
from alexnet.claims.tables import NOT_RUN, numbered
from alexnet.claims.verdicts import Interval, Verdict
from alexnet.config import CifarNet, Scale, Topology
from alexnet.model.cifar import build_cifar_net, count_parameters

CLAIM = "fig1-relu"
UNFINISHED = "not finished at this scale"
TOPOLOGIES: tuple[Topology, ...] = tuple(dict.fromkeys(topology for topology, _ in BEGINNINGS))
DATA_NAMES = {"cifar10": "CIFAR-10", "formula32": "the stand-in for CIFAR-10 (images computed from a formula)"}


@dataclass(frozen=True)
class Comparison:
    """One topology at one scale: both studies, the ratio of their crossing epochs, and the verdict on it."""

    topology: Topology
    scale: Scale
    relu: StudyResult | None
    tanh: StudyResult | None
    ratio: Interval | None  # tanh's epochs over ReLU's, paired by seed
    verdict: Verdict | None

    @property
    def state(self) -> str:
        """Why there is no ratio, in words."""
        return UNFINISHED if any(r is not None and r.search.metrics for r in (self.relu, self.tanh)) else NOT_RUN

    @property
    def seeds(self) -> list[int]:
        """The seeds for which both activations crossed the line."""
        if self.relu is None or self.tanh is None:
            return []
        both = self.relu.crossings.keys() & self.tanh.crossings.keys()
        return sorted(s for s in both if math.isfinite(self.relu.crossings[s] + self.tanh.crossings[s]))


def load(claim: str, scale: Scale, confidence: float = 0.95, record_only: bool = False) -> list[Comparison]:
    """Return the comparison of each topology at `scale`, from recorded runs and, where that is allowed, from new ones."""
    found = (search.recorded_results if record_only else search.results)(claim, scale)
    by_name = {(result.study.topology, result.study.activation): result for result in found}
    return [_compare(t, scale, by_name.get((t, "relu")), by_name.get((t, "tanh")), confidence) for t in TOPOLOGIES]


def _compare(
    topology: Topology, scale: Scale, relu: StudyResult | None, tanh: StudyResult | None, confidence: float
) -> Comparison:
    without = Comparison(topology, scale, relu, tanh, None, None)
    if not without.seeds or relu is None or tanh is None:
        return without
    ratio = verdicts.ratio_interval(
        [tanh.crossings[s] for s in without.seeds], [relu.crossings[s] for s in without.seeds], confidence
    )
    value = paper.get(CLAIM).values[0]
    verdict = verdicts.judge(value, ratio, dataset=relu.study.data, scale=scale, no_effect=1.0)
    return Comparison(topology, scale, relu, tanh, ratio, verdict)


def nets_table() -> Markdown:
    """Return both nets, layer by layer, with their parameters counted."""
    rows = []
    for topology in TOPOLOGIES:
        net = build_cifar_net(CifarNet(topology=topology), seed=0)
        layers = [(name, layer) for name, layer in net.named_children() if sum(p.numel() for p in layer.parameters())]
        kinds = " - ".join(f"{name} ({count_parameters(layer):,})" for name, layer in layers)
        rows.append((topology, kinds, f"{count_parameters(net):,}"))
    headers = ("net", "learned layers (parameters)", "parameters")
    return numbered(rows, headers, "The two candidates for the net of Figure 1, at 32x32 pixels.", "tbl-nets")


def search_table(comparisons: list[Comparison]) -> Markdown:
    """Return the epoch at which each rate of the search crossed the line."""
    rows = []
    for result in (r for c in comparisons for r in (c.relu, c.tanh) if r is not None):
        for rate, crossing in result.search.crossings.items():
            best = rate == result.search.best_rate and result.search.bracketed
            crossed = f"{crossing:.2f}" if math.isfinite(crossing) else "overtaken, or never crossed"
            rows.append(
                (
                    result.study.topology,
                    figures.NAMES[result.study.activation],
                    f"{rate:g}",
                    crossed,
                    "chosen" if best else "",
                )
            )
    headers = ("net", "activation", "rate", f"epoch at {LINE:.0%}", "")
    return numbered(rows, headers, "The search for the learning rates.", "tbl-rates")


def crossings_table(comparisons: list[Comparison]) -> Markdown:
    """Return the crossing epochs of every seed, their ratios, and the interval."""
    rows = []
    for c in comparisons:
        crossings = [{} if result is None else result.crossings for result in (c.relu, c.tanh)]
        for seed in sorted(crossings[0].keys() | crossings[1].keys()):
            relu, tanh = (found.get(seed) for found in crossings)
            ratio = f"{tanh / relu:.2f}" if seed in c.seeds else ""
            rows.append((c.topology, seed, _crossing(relu), _crossing(tanh), ratio))
        rows.append((c.topology, "all", "", "", as_text(c.ratio) if c.ratio else c.state))
    headers = ("net", "seed", f"ReLU, epoch at {LINE:.0%}", f"tanh, epoch at {LINE:.0%}", "times faster")
    return numbered(rows, headers, "How many times faster the ReLU net reaches the line.", "tbl-crossings")


def _crossing(epoch: float | None) -> str:
    return "not run" if epoch is None else f"{epoch:.2f}" if math.isfinite(epoch) else "never"


def as_text(ratio: Interval) -> str:
    """Return a ratio with its interval."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.estimate:.2f} (one seed, no interval)"
    return f"{ratio.estimate:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def draw(comparisons: list[Comparison], topology: Topology, epochs_shown: float) -> Figure | Markdown:
    """Return the figure of one topology, or a line that says it was not run."""
    comparison = next(c for c in comparisons if c.topology == topology)
    results = [r for r in (comparison.relu, comparison.tanh) if r is not None and r.metrics]
    if not results:
        return Markdown(f"*{topology}: {comparison.state}.*")
    figures.use_style()
    data = DATA_NAMES[results[0].study.data]
    return figures.figure1(figures.curves_frame(results), comparison.scale, data, epochs_shown)


def draw_search(comparisons: list[Comparison], topology: Topology) -> Figure | Markdown:
    """Return the curves of the search for the rates of one topology, or a line that says it was not run."""
    comparison = next(c for c in comparisons if c.topology == topology)
    results = [r for r in (comparison.relu, comparison.tanh) if r is not None and r.search.metrics]
    if not results:
        return Markdown(f"*{topology}: {NOT_RUN}.*")
    figures.use_style()
    return figures.search_curves(results, comparison.scale, DATA_NAMES[results[0].study.data])


def save_figures(scale: Scale) -> None:
    """Write the chapter's figures of the primary net beside the runs of `scale`, as SVG, for the README."""
    comparisons = load(CLAIM, scale, record_only=True)
    for name, figure in (("figure1", draw(comparisons, "19pct", 40.0)), ("search", draw_search(comparisons, "19pct"))):
        if isinstance(figure, Figure):
            figure.savefig(runs.runs_dir() / scale / CLAIM / f"{name}.svg", metadata={"Date": None})


def numbers(comparisons: list[Comparison]) -> dict[str, str]:
    """Return the texts that the chapter's prose takes its numbers from."""
    value = paper.get(CLAIM).values[0]
    run = [c for c in comparisons if c.ratio is not None]
    data = next((DATA_NAMES[c.relu.study.data] for c in comparisons if c.relu is not None), NOT_RUN)
    texts = {"scale": comparisons[0].scale, "data": data, "paper-ratio": f"{value.paper:g}"}
    for c in comparisons:
        texts[f"{c.topology}-sentence"] = _sentence(c)
    texts["types"] = _types(comparisons[0].scale)
    texts["nets"] = _whether_nets_agree(comparisons)
    seen = [c for c in run if c.ratio.low is not None and c.ratio.low > 1]
    if run:
        nets = f"{len(seen)} of the {len(run)} nets that ran here"
        texts["direction"] = f"That direction shows, with an interval above 1, in {nets}."
    else:
        texts["direction"] = f"Here it was {comparisons[0].state}."
    return texts


def _whether_nets_agree(comparisons: list[Comparison]) -> str:
    """Return whether the intervals of all nets have a common value, in a sentence, or nothing for fewer than two."""
    bounds = [(c.ratio.low, c.ratio.high) for c in comparisons if c.ratio and c.ratio.low is not None]
    if len(bounds) < 2:
        return ""
    if max(low for low, _ in bounds) <= min(high for _, high in bounds):
        return " Here their intervals overlap."
    return " Here they do not: their intervals do not overlap, so the factor belongs to a net and not to the two functions."


def _types(scale: Scale) -> str:
    """Return in which types the recorded runs were trained, and how far bf16's first losses were from fp32's."""
    recorded = [manifest for manifest in runs.manifests(scale) if manifest["config"]["claim"] == CLAIM]
    chosen = [manifest["parts"][0]["precision"] for manifest in recorded]
    counts = Counter(precision["choice"] for precision in chosen)
    bf16 = [precision for precision in chosen if precision["choice"] == "bf16" and "parity" in precision]
    checks = [precision["parity"]["relative_difference"] for precision in bf16]
    sentence = f"Here {', '.join(f'{number} trainings ran in {choice}' for choice, number in sorted(counts.items()))}."
    if checks:
        sentence += f" Each that took bf16 tried both types first: their mean losses differed by at most {max(checks):.1%}."
    return sentence if counts else ""


def _sentence(c: Comparison) -> str:
    if c.ratio is None or c.verdict is None:
        return f"{c.state}."
    relu = sum(c.relu.crossings[s] for s in c.seeds) / len(c.seeds)
    tanh = sum(c.tanh.crossings[s] for s in c.seeds) / len(c.seeds)
    return (
        f"ReLU reached {LINE:.0%} training error after {relu:.1f} epochs on average and tanh after {tanh:.1f}, over "
        f"{len(c.seeds)} seeds: {as_text(c.ratio)} times faster. {c.verdict.sentence}{_failures(c)}"
    )


def _failures(c: Comparison) -> str:
    """Return a sentence on the seeds that never reached the line, which have no ratio, or nothing."""
    parts = []
    for result in (c.relu, c.tanh):
        lost = [seed for seed, epoch in result.crossings.items() if math.isinf(epoch)] if result is not None else []
        if lost:
            name = figures.NAMES[result.study.activation]
            parts.append(f"{name} with seed {', '.join(map(str, lost))} in {result.study.epochs} epochs")
    return f" Never there, and so without a ratio: {' and '.join(parts)}." if parts else ""
