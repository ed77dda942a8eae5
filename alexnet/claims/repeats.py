"""How far the ratios of `make bench` differ from run to run on the same kind of machine (runs/bench/repeats)."""

import json

from IPython.display import Markdown

from alexnet.claims.performance import NOT_MEASURED, recorded
from alexnet.claims.runs import runs_dir
from alexnet.claims.tables import numbered


def spread_table() -> Markdown:
    """Return the least and the greatest ratio of every row that has a target, over all runs of a machine measured again."""
    again = [json.loads(file.read_text()) for file in sorted((runs_dir() / "bench" / "repeats").glob("*.json"))]
    rows = []
    for bench in recorded():
        others = [other for other in again if other["hardware"] == bench["hardware"]]
        for row in bench["rows"] if others else ():
            target, name = row["at_least"].get(bench["fast_in"]), (row["what"], row["against"])
            if target is not None:
                found = [r["ratio"] for run in (bench, *others) for r in run["rows"] if (r["what"], r["against"]) == name]
                met = sum(ratio >= target for ratio in found)
                limits = f"{min(found):.2f} to {max(found):.2f}"
                rows.append((", against ".join(name), f"{target:g}", limits, f"{met} of {len(found)}"))
    if not rows:
        return Markdown(f"The differences between runs: {NOT_MEASURED}.")
    headers = ("speed of", "at least", "ratios", "met in")
    return numbered(rows, headers, "Ratios of all recorded runs on the machine that was measured again.", "tbl-bench-spread")
