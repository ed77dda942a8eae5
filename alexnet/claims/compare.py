"""Every claim beside the 2012 log and our measurement: for the book's first page and for `alexnet compare`."""

from collections.abc import Callable
from dataclasses import dataclass

from IPython.display import Markdown
from tabulate import tabulate

from alexnet.claims import fig1, paper
from alexnet.claims.paper import Claim, Value
from alexnet.claims.tables import numbered
from alexnet.config import SCALES, Scale

NOT_RUN = "not run"


@dataclass(frozen=True)
class Measurement:
    """What our runs at one scale say about a claim: a number with its interval as text, and the verdict."""

    scale: Scale
    text: str
    verdict: str


def _measure_fig1(scale: Scale) -> Measurement | None:
    comparison = next(c for c in fig1.load("fig1-relu", scale, record_only=True) if c.topology == "19pct")
    if comparison.ratio is None or comparison.verdict is None:
        return None
    return Measurement(scale, fig1.as_text(comparison.ratio), comparison.verdict.word)


# Claim -> its measurement at a scale from recorded runs, or None. A later chapter adds its own line.
MEASURES: dict[str, Callable[[Scale], Measurement | None]] = {"fig1-relu": _measure_fig1}


def measurement(claim: str, scales: tuple[Scale, ...] = SCALES) -> Measurement | None:
    """Return the measurement of `claim` at the largest of `scales` at which there is one."""
    if claim not in MEASURES:
        return None
    found = (MEASURES[claim](scale) for scale in reversed(scales))
    return next((m for m in found if m is not None), None)


def rows_of(claim: Claim, scales: tuple[Scale, ...] = SCALES) -> list[tuple[str, ...]]:
    """Return (claim, section, what, paper, 2012 log, ours, verdict), one row for each value of the claim."""
    measured = measurement(claim.id, scales)
    ours = f"{measured.text}, scale {measured.scale}" if measured else ""
    verdict = measured.verdict if measured else NOT_RUN
    values: tuple[Value | None, ...] = claim.values or (None,)
    rows = []
    for i, value in enumerate(values):
        what = claim.direction if value is None else ", ".join(filter(None, [value.name, value.subject]))
        printed = "" if value is None else printed_value(value)
        log = "" if value is None or value.log2012 is None else f"{value.log2012:g}"
        first = i == 0
        rows.append((claim.id if first else "", claim.section if first else "", what, printed, log,
                     ours if first else "", verdict if first else ""))  # fmt: skip
    return rows


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
        ours = f"{measured.text} at scale {measured.scale}: {measured.verdict}" if measured else NOT_RUN
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
    """Return how many claims have a measurement, and at which scales."""
    done = [m for m in map(measurement, paper.CLAIMS) if m is not None]
    scales = ", ".join(f"{sum(m.scale == scale for m in done)} at scale {scale}" for scale in SCALES)
    return f"Measured so far: {len(done)} of {len(paper.CLAIMS)} claims ({scales})."


def as_text(claim: str, scale: Scale) -> str:
    """Return the table of `alexnet compare`. Raises UserError for an unknown claim."""
    claims = list(paper.CLAIMS.values()) if claim == "all" else [paper.get(claim)]
    rows = [row for c in claims for row in rows_of(c, (scale,))]
    return tabulate(rows, headers=HEADERS, disable_numparse=True, maxcolwidths=[None, 12, 40, None, None, None, 30])
