"""Every claim of the paper with its number, the 2012 run notes', ours and the verdict: front page and `alexnet compare`.

What experiments test has a line for each answer: every net and variant that a claim may mean, not the one that agrees.
Definitions, arithmetic and numbers that the paper quotes are said to be so, and never among what was measured.
"""

import textwrap
from collections import Counter
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from alexnet.config import UserError, nearest
from alexnet.experiments import EXPERIMENTS
from alexnet.experiments.declare import QUESTIONS, WHY_NONE
from alexnet.experiments.results import Result, Results, recorded_scale, yours
from alexnet.experiments.scales import SCALES, Scale
from alexnet.experiments.statistics import NO_VERDICT, on
from alexnet.paper import arithmetic
from alexnet.paper.claims import CLAIMS, EXACT_UNITS, Claim, Value
from alexnet.report.chapter import NOTHING, noted, printed

NOT_RUN, NO_EXPERIMENT, BY_CONSTRUCTION, OF_SETS = "not run", "no experiment", "by construction", "about the sets"
IN_CHAPTER = "see its chapter"  # of a question whose answer is no number
EFFECTS = ("agrees", "compatible", "smaller", "larger", "direction seen")  # the paper's effect was seen
PRINTED = 0.05 + 1e-9  # half of the last digit of an error rate or a gain


@dataclass(frozen=True)
class Line:
    """One number of a claim and what became of it."""

    claim: Claim
    what: str  # the value, and the net or variant that was measured
    paper: str
    notes2012: str
    ours: str  # with interval
    where: str  # data set, split, views, scale; or why there is nothing
    word: str  # the verdict
    result: Result | None = None  # of an experiment

    @property
    def is_measured(self) -> bool:
        """Whether trainings measured it."""
        return self.result is not None and self.result.interval is not None

    @property
    def is_judged(self) -> bool:
        """Whether trainings on photographs, enough for a verdict, measured it."""
        return self.is_measured and self.result.scale != "toy" and self.word not in NO_VERDICT


def lines(claim: str | None = None, scale: Scale | None = None) -> list[Line]:
    """Return the lines of a claim, or of all and our questions, at a scale, or at the largest with a result."""
    known = CLAIMS | QUESTIONS
    if claim is not None and claim not in known:
        raise UserError(f"There is no claim {claim!r}{nearest(claim, known)}. `alexnet compare` lists them.")
    return [line for each in (known.values() if claim is None else [known[claim]]) for line in _lines_of(each, scale)]


def _lines_of(claim: Claim, scale: Scale | None) -> list[Line]:
    experiments = [e for e in EXPERIMENTS if e.claim == claim.id]
    at = [(e, scale or recorded_scale(e) or SCALES[-1]) for e in experiments]  # the largest with a result
    found = [_tested(claim, result) for e, largest in at for result in Results(e, largest).answers()]
    tested = {key.partition(";")[0] for e in experiments for key in e.answers}
    found += [_untested(claim, key, value) for key, value in claim.keyed.items() if key not in tested]
    # A claim in words alone has no value.
    open_ = (NOT_RUN if tested else IN_CHAPTER) if experiments else NO_EXPERIMENT
    word = {"definition": BY_CONSTRUCTION, "data": OF_SETS}.get(claim.kind, open_)
    return found or [Line(claim, claim.direction or claim.wording, NOTHING, NOTHING, NOTHING, "", word)]


def _tested(claim: Claim, result: Result) -> Line:
    ours, where, word = NOTHING, result.experiment.reason(result.scale), NOT_RUN
    if result.ours:
        ours, word, at = result.ours, result.verdict.word, result.where
        where = f"{on(at.data, at.split, at.views)}, scale {result.scale}"
    return Line(claim, result.about, printed(result.value), noted(result.value), ours, where, word, result)


def _untested(claim: Claim, key: str, value: Value) -> Line:
    """Return the line of a number that no experiment answers: counted, held by construction, quoted, or nobody's yet."""
    number = arithmetic.COMPUTED.get(claim.id, {}).get(key)
    ours, where, word = NOTHING, WHY_NONE.get(f"{claim.id}: {key}", WHY_NONE.get(claim.id, "")), NO_EXPERIMENT
    if number is not None:
        ours = f"{number:,.0f}" if number == int(number) else f"{number:.4g}"
        where, word = "counted", arithmetic.word(claim, value, number)
    elif value.quoted:
        word = "quoted from others"
    elif claim.kind == "data":
        word = OF_SETS
    elif claim.kind == "definition" or value.unit in EXACT_UNITS:  # a setting, of a measured claim too
        word = BY_CONSTRUCTION
    return Line(claim, key, printed(value), noted(value), ours, where, word)


def frame() -> pd.DataFrame:
    """Return the whole scorecard as a table to download."""
    rows = [vars(line) | {"claim": line.claim.id, "section": line.claim.section} for line in lines()]
    return pd.DataFrame(rows, columns=["claim", "section", "what", "paper", "notes2012", "ours", "where", "word"])


def answer_sentences() -> dict[str, str]:
    """Return what the front page says, from the record: "notes", "counts", "words", "arithmetic"."""
    everything = [line for line in lines() if line.claim.id in CLAIMS]
    tested = [line for line in everything if line.claim.is_measured]
    judged = [line for line in tested if line.is_judged]
    claims, found = (len({line.claim.id for line in some}) for some in (tested, judged))
    values = [value for claim in CLAIMS.values() if claim.is_measured for value in claim.values if not value.derived]
    noted2012 = [v for v in values if v.notes2012 is not None and v.unit in ("%", "points") and v.bound == "equal"]
    same = sum(abs(value.notes2012 - value.paper) <= PRINTED for value in noted2012)
    # Why: two claims may share a measurement.
    once = dict.fromkeys((line.what, line.ours, line.where, line.word) for line in judged)
    listed = ", ".join(f"{word} ({n})" for word, n in Counter(word for *_, word in once).most_common())
    counts = Counter(line.word for line in everything if not any(value.derived for value in line.claim.values))
    gain = next(line.result for line in lines("s3.3-lrn", "small") if line.what == "top-1 gain")
    least = f"{(gain.interval.high - gain.interval.low) / 2:.2f}" if gain.interval and gain.interval.ends else ""
    theirs = [value.paper for value in values if value.key == "top-1 gain" and not value.is_direction]
    return {
        "notes": f"Of {len(noted2012)} results that stand both in the paper and in its authors' run notes of 2012, "
        f"{'all' if same == len(noted2012) else same} agree to the last printed digit.",
        "counts": f"Of the {claims} claims that only trainings can test, {found or 'none'} "
        f"{'has' if found < 2 else 'have'} so far been judged here on photographs, by {len(once)} numbers.",
        "words": f"Their verdicts: {listed}." if listed else "There is no verdict so far.",
        "power": f"What is not seen may be there: at scale small the measured gain of a change to the net must be "
        f"larger than {least} points of top-1 error to be seen, and the paper's are {min(theirs):g} to {max(theirs):g}."
        if least
        else "",
        "arithmetic": f"Of the printed numbers that are arithmetic, {counts['arithmetic: true']} are true and "
        f"{counts['arithmetic: false']} false.",
    }


def as_text(claim: str, scale: Scale) -> str:
    """Return the table of `alexnet compare`. Raises UserError for an unknown claim."""
    found = lines(None if claim == "all" else claim, scale)
    widths = (None, 34, None, None, 30, 24, 20)
    told = [(line.claim.id, line.what, line.paper, line.notes2012, line.ours, line.where, line.word) for line in found]
    own = yours(None if claim == "all" else claim, scale)
    told += [(of, what, NOTHING, NOTHING, ours, f"{where}, scale {at}", "yours") for of, what, ours, where, at in own]
    rows = [  # Why not tabulate's maxcolwidths: it takes "60,965,224" for a number.
        [cell if width is None else textwrap.fill(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for cells in told
    ]
    headers = ("claim", "what", "paper", "2012 run notes", "ours", "on", "verdict")
    text = tabulate(rows, headers=headers, disable_numparse=True)
    sentences = [line.result.verdict.sentence for line in found if line.is_measured and claim != "all"]
    return "\n".join([text, *sentences])
