"""One experiment at one scale, as a chapter of the book shows it: frames to draw from, tables, sentences, provenance.

    chapter = Chapter("s3.3-lrn", "small")
    chapter.show(figure, "fig-lrn", caption="...", alt="...")

Where nothing was run at the scale, `show` says so; drawing code is loops over groups, which an empty frame passes through.
"""

import re
from collections.abc import Iterable
from functools import cached_property

from IPython.display import Markdown
from matplotlib.figure import Figure

from alexnet.experiments import plan
from alexnet.experiments.declare import Experiment
from alexnet.experiments.results import Result, Results, yours
from alexnet.experiments.runs import Run
from alexnet.experiments.scales import Scale, stamp
from alexnet.experiments.statistics import on, unit_of
from alexnet.paper.claims import EXACT_UNITS, Value
from alexnet.preprocessing import SETS
from alexnet.preprocessing.catalog import title_of
from alexnet.report import figures, links
from alexnet.report.tables import numbered

REPOSITORY = "https://github.com/alexnet-reproduction/alexnet"
NOTHING = "-"


class Chapter:
    """An experiment at a scale; raises UserError for a claim that no experiment tests."""

    def __init__(self, claim: str | Experiment, scale: Scale) -> None:
        self.experiment = plan.experiments_of([claim])[0] if isinstance(claim, str) else claim
        self.scale, self.results = scale, Results(self.experiment, scale)
        self.frame, self.curves = self.results.frame, self.results.curves  # see there for their columns
        self.data = self.experiment.stand_in(scale)

    @cached_property
    def runs(self) -> list[Run]:
        """Every run of the experiment's arms that ended, each once."""
        return list({run.name: run for by_seed in self.results.shown.values() for run in by_seed.values()}.values())

    @property
    def seeds(self) -> str:
        """The seeds of the runs, as "0, 1"."""
        return ", ".join(map(str, sorted({run.seed for run in self.runs})))

    @cached_property
    def answers(self) -> list[Result]:
        """Every answer with its interval and verdict."""
        return self.results.answers()

    def noise(self, control: str) -> str:
        """Return how far the seeds of an arm lie apart in top-1 error: what stands before its gains, as a sentence."""
        at = self.answers[0].where
        error = 100 * self.frame().query("arm == @control and k == 1 and views == 'ten' and split == @at.split").error
        if len(error) < 2:
            return "Here the unmodified net has not been run with several seeds yet."
        told = f"Here the unmodified net has a top-1 error of {error.mean():.1f} % ({on(at.data, at.split, 'ten')}), with a"
        apart = error.max() - error.min()
        return f"{told} standard deviation of {error.std():.2f} points over {len(error)} seeds, which lie {apart:.2f} apart."

    def claim_table(self) -> Markdown:
        """Return the claim in our words with its numbers, margins and the 2012 run notes': the head of a chapter."""
        claim = self.experiment.about
        rows = [("our question" if claim.kind == "question" else "the paper says", claim.wording)]
        for value in claim.values:
            where = on(value.dataset, value.split, value.views)
            is_judged = value.margin and not value.is_direction
            close = f"; our margin: {value.margin:g}" if is_judged else ""
            rows.append((value.key, f"{printed(value)}{f' ({where})' if where else ''}{close}"))
            if value.notes2012 is not None:
                rows.append(("2012 run notes", f"{noted(value)} ({links.source(value.notes_source)})"))
        notes = (("what we look for", claim.direction), ("the paper also says", claim.looser), ("note", claim.note))
        rows += [(name, text) for name, text in notes if text]
        return numbered(rows, ("section", claim.section), f"Claim `{claim.id}`.", f"tbl-claim-{claim.id}")

    def verdicts(self) -> Markdown:
        """Return the measured answers beside the paper and the 2012 run notes, the user's own, and what was not run."""
        headers = ("what", "verdict", "ours", "paper", "2012 run notes")
        seen = [result for result in self.answers if result.ours]
        rows = [(r.about, f"**{r.verdict.word}**", r.ours, printed(r.value), noted(r.value)) for r in seen]
        own = yours(self.experiment.claim, self.scale)
        rows += [(f"{what}; {where}", "yours", ours, NOTHING, NOTHING) for _, what, ours, where, _ in own]
        where = sorted({on(r.where.data, r.where.split, r.where.views) for r in seen}) or ["your own trainings"]
        left = [result.about for result in self.answers if not result.ours]
        return self._table(rows, headers, f"What was measured at scale {{}}, on {'; '.join(where)}", "tbl-verdicts", left)

    def _table(self, rows: list, headers: tuple[str, ...], said: str, name: str, left: list[str]) -> Markdown:
        """Return a table that says what is left to run; where there are no rows that alone."""
        missing = f"Not run at scale {stamp(self.scale)}: {'; '.join(left)}." if left else ""
        caption, name = f"{said.format(stamp(self.scale))}. {missing}".strip(), f"{name}-{self.experiment.claim}"
        return numbered(rows, headers, caption, name, "stacked compact") if rows else Markdown(missing)

    def runs_table(self) -> Markdown:
        """Return the runs of each arm, near ties too: seeds, minutes, machine, commit, with links to their folders."""
        rows, found = [], self.results
        tied = {f"{arm} at {rate:g}": found.at_rate(arm, rate) for arm, s in found.searches.items() for rate in s.ties}
        listed = found.runs | tied
        for arm, by_seed in listed.items():
            if group := list(by_seed.values()):
                segments = [segment for run in group for segment in run.manifest["segments"]]
                machines = dict.fromkeys(f"{_machine(segment)}, {segment['precision']['choice']}" for segment in segments)
                minutes = f"{sum(run.manifest['seconds'] for run in group) / 60:.0f}"
                seeds = ", ".join(map(str, sorted(by_seed)))
                rows.append((arm, _folder(group[0]), seeds, minutes, "; ".join(machines), _commits(group)))
        headers = ("arm", "run", "seeds", "minutes in all", "machine, precision", "commit")
        left = [f"`{arm}`" for arm, by_seed in listed.items() if not by_seed]
        return self._table(rows, headers, "The runs at scale {}", "tbl-runs", left)

    @property
    def stamp(self) -> str:
        """What is written into every figure: scale, set, seeds."""
        which = f" | seed{'s' * (not self.seeds.isdecimal())} {self.seeds}" if self.runs else ""
        return f"scale {stamp(self.scale)} | {title_of(self.data)}{which}"

    def provenance(self, *others: "Chapter") -> str:
        """Return what a figure was made from, as a line of Markdown: runs, also those of `others`, commits, commands."""
        runs = {run.name: run for each in (self, *others) for run in each.runs}.values()
        folders = list(dict.fromkeys(map(_folder, runs)))
        shown = ", ".join(folders) if len(folders) <= 4 else f"{len(runs)} in `runs/{self.data}`"
        again = ", ".join(f"`alexnet train {each.experiment.claim} --scale {self.scale}`" for each in (self, *others))
        return f"Runs: {shown}. Commit: {_commits(runs)}. To repeat: {again}."

    @property
    def is_measured(self) -> bool:
        """Whether there is something to show: a run, and where answers are asked for, one of them."""
        return bool(self.runs) and (not self.answers or any(result.ours for result in self.answers))

    def show(self, figure: Figure, name: str, caption: str, alt: str) -> Markdown:
        """Return the figure with scale, set, seeds and provenance; or, if nothing was measured, a notice with the cost."""
        if self.is_measured:
            return figures.show(figure, name, caption, alt, self.stamp, self.provenance())
        figures.plt.close(figure)
        return self.notice(caption)

    def notice(self, what: str) -> Markdown:
        """Return that something was not run at this scale, what it would show, and what it takes."""
        return Markdown(f":::{{note}}\nNot run at scale {self.scale}. It will show: {what}\n\n{self.cost()}\n:::")

    def cost(self) -> str:
        """Return how many trainings the experiment takes and how many images they are shown, and what says how long."""
        wanted = plan.wanted(self.scale, [self.experiment.claim], assume=True)
        images = sum(each.expected_epochs * SETS[each.config.data].counts["train"] for each in wanted)
        takes = f"It takes {len(wanted)} trainings, in which {images:,.0f} images are shown."
        return f"{takes} What is left, and how long it takes: `alexnet plan {self.experiment.claim} --scale {self.scale}`."

    def glue(self, **more: object) -> None:
        """Hand the chapter's prose its numbers and sentences: "scale", "data", "seeds", those of each answer, and `more`.

        An answer "top-1 gain; the same net" gives "top-1-gain-the-same-net" (ours), and that with "-paper" and "-notes".
        """
        from myst_nb import glue

        for key, text in (self.texts() | {key.replace("_", "-"): text for key, text in more.items()}).items():
            glue(key, str(text), display=False)

    def texts(self) -> dict[str, str]:
        """Return what `glue` hands over."""
        found = {"scale": stamp(self.scale), "data": title_of(self.data), "seeds": self.seeds or "none", "cost": self.cost()}
        for result in self.answers:
            name = slug(result.key)
            ours = result.ours or "not run at this scale"
            found |= {name: ours, f"{name}-paper": printed(result.value), f"{name}-notes": noted(result.value)}
        return found


def slug(text: str) -> str:
    """Return a key as a name for glue: "top-1 gain; the same net" is "top-1-gain-the-same-net"."""
    return re.sub(r"[^a-z0-9*]+", "-", text.lower()).strip("-")


def printed(value: Value) -> str:
    """Return a value as the paper prints it, with unit and bound; an effect may have a direction only, our question none."""
    # Why by the margin: it is that of whole percents where the paper prints no decimal (claims.toml).
    bound, digits = value.bound.replace("equal", ""), ".1f" if value.unit == "%" and value.margin < 0.5 else ",.10g"
    unit = " point" if value.unit == "points" and value.paper == 1 else unit_of(value)
    told = "direction only" if value.is_direction else f"{bound} {value.paper:{digits}}{unit}".strip()
    return NOTHING if value.asked else told


def noted(value: Value) -> str:
    """Return what the 2012 run notes or source have for a value."""
    if value.notes2012 is None:
        return NOTHING
    digits = ",.10g" if value.unit in EXACT_UNITS else ".2f" if value.unit == "%" else ".4g"
    return f"{value.notes2012:{digits}}{unit_of(value)}"


def _folder(run: Run) -> str:
    """Return the folder of a run's config, with a link to it unless it is on images made by formula and not committed."""
    name, data = run.folder.parent.name, run.config.data
    return f"`{name}`" if SETS[data].stand_in else f"[{name}]({REPOSITORY}/tree/main/runs/{data}/{name})"


def _machine(segment: dict) -> str:
    device = segment["device"]
    return device if device != "cpu" else f"{segment['hardware']['processor']} ({segment['hardware']['cpu_capability']})"


def _commits(runs: Iterable[Run]) -> str:
    """Return the commits of the code that made runs; a star marks one with changes that were not committed."""
    states = [segment["git"] for run in runs for segment in run.manifest["segments"]]
    names = dict.fromkeys((s["commit"] or "none")[:8] + ("*" if s["dirty"] else "") for s in states)
    return ", ".join(names) or NOTHING
