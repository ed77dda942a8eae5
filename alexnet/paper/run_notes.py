"""The authors' own notes on their runs of 2012 and 2013, from the comments of the released parameter files.

run_notes.csv has a line for each result of a run that is noted, or for the run where none is: 112 runs and variants from
June 2012 to February 2013. The release has these notes and the parameters; logs it has not. Errors are fractions there, and
`views` is "ten", "central", or empty where a note does not say.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pandas as pd

# Runs of the whole length whose error rates differ by their schedules alone. Some share 169's first 24 epochs, so that they
# spread less than independent runs would.
SCHEDULES_ALONE = ("169", "170", "171", "174")


@dataclass(frozen=True)
class Pair:
    """Two runs whose difference the paper prints as a gain: (run, variant, views), the run without comes first."""

    claim: str
    without: tuple[str, str, str]
    with_: tuple[str, str, str]


PAIRS = (
    Pair("s3.2-two-gpus", ("145", "half", "ten"), ("145", "2010", "ten")),
    Pair("s3.3-lrn", ("148", "", "ten"), ("145", "2012", "ten")),
    Pair("s3.4-overlap", ("147", "", "ten"), ("145", "2012", "ten")),
    Pair("s6-pretraining", ("145", "2012", "ten"), ("146", "2012-from-2011", "ten")),
    Pair("s6-ten-crop", ("145", "2010", "central"), ("145", "2010", "ten")),
)


@cache
def _read() -> pd.DataFrame:
    text = ["run", "variant", "started", "data", "relative_to", "change", "views", "split", "outcome", "source"]
    with (files("alexnet.paper") / "run_notes.csv").open() as file:
        notes = pd.read_csv(file, dtype=dict.fromkeys(text, str))
    return notes.fillna(dict.fromkeys(text, ""))


def frame() -> pd.DataFrame:
    """Return the notes, a row for each result: run, variant, data, change, epochs of each drop, errors, outcome, source."""
    return _read().copy()


def errors(run: str, variant: str = "", views: str = "ten", split: str = "") -> tuple[float, float]:
    """Return the top-1 and top-5 error in percent of a noted result; `split` is needed where a run has several.

    Raises ValueError unless exactly one result fits.
    """
    notes = _read()
    fits = (notes.run == run) & (notes.variant == variant) & (notes.views == views)
    found = notes[fits & ((notes.split == split) | (split == ""))]
    if len(found) != 1:
        raise ValueError(f"{len(found)} results fit run {run!r}, {variant!r}, {views!r}, {split!r}; exactly one must")
    return float(100 * found.top1_error.iloc[0]), float(100 * found.top5_error.iloc[0])


def gains() -> pd.DataFrame:
    """Return the pairs behind the published gains: claim, both runs, data, split, top-1 and top-5 gain in points."""
    rows = []
    for pair in PAIRS:
        (run, variant, views), notes = pair.with_, _read()
        (first, fifth), (first_with, fifth_with) = errors(*pair.without), errors(*pair.with_)
        where = notes[(notes.run == run) & (notes.variant == variant) & (notes.views == views)].iloc[0]
        names = ["-".join(filter(None, of[:2])) for of in (pair.without, pair.with_)]
        rows.append((pair.claim, *names, where.data, where.split, first - first_with, fifth - fifth_with))
    return pd.DataFrame(rows, columns=["claim", "without", "with", "data", "split", "top1_gain", "top5_gain"])


def schedule_spread() -> tuple[float, float]:
    """Return by how many points the top-1 and the top-5 errors of runs that differ in their schedules alone lie apart."""
    first, fifth = zip(*(errors(run) for run in SCHEDULES_ALONE), strict=True)
    return max(first) - min(first), max(fifth) - min(fifth)
