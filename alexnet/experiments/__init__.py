"""How claims are tested: experiments declared, the runs they need, what is measured of them, what follows.

    scales.py        toy, small and paper: which set stands for which, width, epochs, seeds
    declare.py       Experiment, arms and how a scale fills them in; answers.py: what is computed from arms
    sections.py      the declarations of the paper's claims; questions.py: of what the paper does not ask
    runs.py          the store of runs; artefacts.py: what is measured once of a finished run
    plan.py          which runs are wanted, their states and costs; runner.py: the queue over devices and cores
    rate_search.py   the fastest learning rate of Figure 1
    statistics.py    intervals and verdicts; results.py: from runs to answers

`EXPERIMENTS` has every declaration, those of most value first: a queue takes their runs in this order.
"""

import importlib
from typing import Any

__all__ = ["EXPERIMENTS"]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "EXPERIMENTS":
        return importlib.import_module(f"{__name__}.{name}")  # Why so late: `alexnet --help` needs not wait for torch
    from alexnet.experiments import questions, sections

    return (*sections.EXPERIMENTS, *questions.EXPERIMENTS, *sections.LATE, *questions.LATE)
