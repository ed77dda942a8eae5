"""Every claim beside the 2012 log and our measurement: for the book's first page and for `alexnet compare`.

A measurement comes from recorded runs at a scale, or by arithmetic from the net (`arithmetic.computed`), which has no scale.
"""

from collections.abc import Callable
from dataclasses import dataclass

from IPython.display import Markdown
from tabulate import tabulate

from alexnet.claims import arithmetic, fig1, paper
from alexnet.claims.paper import Claim, Value
from alexnet.claims.tables import numbered
from alexnet.config import SCALES, Scale

NOT_RUN = "not run"


@dataclass(frozen=True)
class Measurement:
    """What our runs at one scale, or the net's arithmetic, say about a claim: a number as text, and the verdict."""

    scale: Scale | None  # None: computed
    text: str
    verdict: str

    @property
    def number(self) -> str:
        """The number with what it comes from."""
        return f"{self.text}, " + ("computed" if self.scale is None else f"scale {self.scale}")


def _measure_fig1(scale: Scale) -> Measurement | None:
    comparison = next(c for c in fig1.load("fig1-relu", scale, record_only=True) if c.topology == "19pct")
    if comparison.ratio is None or comparison.verdict is None:
        return None
    return Measurement(scale, fig1.as_text(comparison.ratio), comparison.verdict.word)


# Claim -> its measurement at a scale from recorded runs, or None. A later chapter adds its own line.
MEASURES: dict[str, Callable[[Scale], Measurement | None]] = {"fig1-relu": _measure_fig1}


def measurement(claim: str, scales: tuple[Scale, ...] = SCALES) -> Measurement | None:
    """Return the measurement of `claim` at the largest of `scales` at which there is one, or what is computed for all of it.

    A claim whose direction has to be seen in runs is not measured by arithmetic.
    """
    if claim in MEASURES:
        found = (MEASURES[claim](scale) for scale in reversed(scales))
        return next((m for m in found if m is not None), None)
    return None if paper.get(claim).direction else _computed_claim(paper.get(claim))


def _computed_claim(claim: Claim) -> Measurement | None:
    """Return what arithmetic says about the values of a claim: how many agree, and each one that does not."""
    found = {value: m for value in claim.values if (m := _computed_value(claim, value)) is not None}
    if not found:
        return None
    others = [(value, m) for value, m in found.items() if m.verdict != "agrees"]
    text = f"{len(found) - len(others)} of {len(found)} numbers"
    exceptions = (f"; {_what(value)}: {m.text}, {m.verdict}" for value, m in others)
    return Measurement(None, text, "agrees" + "".join(exceptions))


def _computed_value(claim: Claim, value: Value) -> Measurement | None:
    number = arithmetic.computed(claim.id).get((value.name, value.subject))
    return None if number is None else Measurement(None, f"{number:,.7g}", arithmetic.word(value, number))


def rows_of(claim: Claim, scales: tuple[Scale, ...] = SCALES) -> list[tuple[str, ...]]:
    """Return (claim, section, what, paper, 2012 log, ours, verdict), one row for each value of the claim."""
    values: tuple[Value | None, ...] = claim.values or (None,)
    rows = []
    for i, value in enumerate(values):
        what = claim.direction if value is None else _what(value)
        printed = "" if value is None else printed_value(value)
        log = "" if value is None or value.log2012 is None else f"{value.log2012:g}"
        head = (claim.id, claim.section) if i == 0 else ("", "")
        measured = None if value is None else _computed_value(claim, value)
        if measured is None and i == 0:
            measured = measurement(claim.id, scales)
        ours = (measured.number, measured.verdict) if measured else ("", NOT_RUN if i == 0 else "")
        rows.append((*head, what, printed, log, *ours))
    return rows


def _what(value: Value) -> str:
    return ", ".join(filter(None, [value.name, value.subject]))


def printed_value(value: Value) -> str:
    """Return a value of the paper with its unit and its bound."""
    bound = {"equal": "", "at least": "at least ", "at most": "at most "}[value.bound]
    unit = {"count": "", "constant": "", "ratio": " times"}.get(value.unit, f" {value.unit}")
    return f"{bound}{value.paper:,.10g}{unit}"


HEADERS = ("claim", "section", "what", "paper", "2012 log", "ours", "verdict")


def claims_table() -> Markdown:
    """Return the table of every claim, one row each, with its verdict so far."""
    rows = []
    for claim in paper.CLAIMS.values():
        measured = measurement(claim.id)
        ours = f"{measured.number}: {measured.verdict}" if measured else NOT_RUN
        rows.append((f"`{claim.id}` ({claim.section})", claim.wording, ours))
    headers = ("claim (section)", "what the paper says, in our words", "ours")
    return numbered(rows, headers, "Every claim of the paper, and how close we are.", "tbl-claims")


def values_table() -> Markdown:
    """Return every number of the paper beside the 2012 log's."""
    rows = [row[:5] for claim in paper.CLAIMS.values() for row in rows_of(claim) if row[3]]
    return numbered(rows, HEADERS[:5], "Every number the paper prints, and the 2012 log's where it has one.", "tbl-values")


def claim_table(claim: Claim) -> Markdown:
    """Return one claim in words with its values, as the beginning of its chapter."""
    rows = [("section", claim.section), ("the paper says", claim.wording)]
    for value in claim.values:
        where = ", ".join(filter(None, [value.dataset, value.split, value.views]))
        rows.append((value.name, printed_value(value) + (f" ({where})" if where else "")))
        if value.margin:
            rows.append(("we say that it agrees", f"within {value.margin:g} of it, on the same images"))
            rows.append(("2012 log", "no run" if value.log2012 is None else f"{value.log2012:g}, {value.log_source}"))
    notes = (("to be seen", claim.direction), ("the paper's looser band", claim.looser), ("note", claim.note))
    rows += [(name, text) for name, text in notes if text]
    return numbered(rows, ("", ""), f"Claim `{claim.id}`.", f"tbl-claim-{claim.id}")


def progress_sentence() -> str:
    """Return how many claims have a measurement, at which scales, and how many are arithmetic."""
    done = [m for m in map(measurement, paper.CLAIMS) if m is not None]
    computed = sum(m.scale is None for m in done)
    scales = ", ".join(f"{sum(m.scale == scale for m in done)} at scale {scale}" for scale in SCALES)
    return f"Measured so far: {len(done)} of {len(paper.CLAIMS)} claims ({scales}, {computed} computed from the net)."


def as_text(claim: str, scale: Scale) -> str:
    """Return the table of `alexnet compare`. Raises UserError for an unknown claim."""
    claims = list(paper.CLAIMS.values()) if claim == "all" else [paper.get(claim)]
    rows = [row for c in claims for row in rows_of(c, (scale,))]
    return tabulate(rows, headers=HEADERS, disable_numparse=True, maxcolwidths=[None, 12, 40, None, None, None, 30])
