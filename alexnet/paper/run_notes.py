"""The authors' own notes on their runs of 2012 and 2013, from the comments of the released parameter files.

run_notes.csv has a line for each result of a run that is noted, or for the run where none is: 112 runs and variants from
June 2012 to February 2013. The release has these notes and the parameters; logs it has not. Errors are fractions there, and
`views` is "ten", "central", or empty where a note does not say.
"""

from importlib.resources import files

import numpy as np
import pandas as pd

# Runs of the whole length whose error rates differ by their schedules alone. Some share 169's first 24 epochs, so that they
# spread less than independent runs would.
SCHEDULES_ALONE = ("169", "170", "171", "174")
GIVEN_UP = ("155", "156", "157", "158", "160")  # of net 145 too, by schedules that gave larger errors
# Claim -> two runs, (run, variant, views), whose difference is a gain: one that the paper prints, or the difference of two
# rates that it prints. The run without comes first.
PAIRS = {
    "s3.2-two-gpus": (("145", "half", "ten"), ("145", "2010", "ten")),
    "s3.3-lrn": (("148", "", "ten"), ("145", "2012", "ten")),
    "s3.4-overlap": (("147", "", "ten"), ("145", "2012", "ten")),
    "s6-pretraining": (("145", "2012", "ten"), ("146", "2012-from-2011", "ten")),
    "s6-ten-crop": (("145", "2010", "central"), ("145", "2010", "ten")),
}


def frame() -> pd.DataFrame:
    """Return the notes, a row for each result: run, variant, data, change, epochs of each drop, errors, outcome, source."""
    text = ["run", "variant", "started", "data", "relative_to", "change", "views", "split", "outcome", "source"]
    with (files("alexnet.paper") / "run_notes.csv").open() as file:
        return pd.read_csv(file, dtype=dict.fromkeys(text, str)).fillna(dict.fromkeys(text, ""))


def errors(run: str, variant: str = "", views: str = "ten", split: str = "") -> tuple[float, float]:
    """Return the top-1 and top-5 error in percent of a noted result; ValueError unless exactly one result fits."""
    found = _result(run, variant, views, split)
    return float(100 * found.top1_error), float(100 * found.top5_error)


def _result(run: str, variant: str, views: str, split: str = "") -> pd.Series:
    notes = frame()
    fits = (notes.run == run) & (notes.variant == variant) & (notes.views == views)
    found = notes[fits & ((notes.split == split) | (split == ""))]
    if len(found) != 1:
        raise ValueError(f"{len(found)} results fit run {run!r}, {variant!r}, {views!r}, {split!r}; exactly one must")
    return found.iloc[0]


def gains() -> pd.DataFrame:
    """Return the pairs behind the published gains: claim, both runs, data, split, top-1 and top-5 gain in points."""
    rows = []
    for claim, pair in PAIRS.items():
        names = ["-".join(filter(None, of[:2])) for of in pair]
        where, (old, new) = _result(*pair[1]), (np.array(errors(*of)) for of in pair)
        rows.append((claim, *names, where.data, where.split, *(old - new)))
    return pd.DataFrame(rows, columns=["claim", "without", "with", "data", "split", "top1_gain", "top5_gain"])


def schedule_spread(of: tuple[str, ...] = SCHEDULES_ALONE) -> tuple[float, float]:
    """Return by how many points the top-1 and the top-5 errors of runs that differ in their schedules alone lie apart."""
    first, fifth = np.ptp([errors(run) for run in of], axis=0)
    return float(first), float(fifth)
